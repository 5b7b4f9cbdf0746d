// Method: Tempo, arXiv 2210.10246, section 3 (the output and one bit instead of the input); the fit is our own, see
// activation_fit.h. Work goes in chunks of sixteen elements, two bytes of bits.
#include <type_traits>

#include "gantry/kernels/activation/activation_math.h"
#include "gantry/kernels/activation/chunks.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

std::int64_t flag_offset(SideFlag side, std::int64_t i) { return side == SideFlag::kBit ? i / 8 : i; }
std::int64_t flag_count(SideFlag side, std::int64_t count) { return side == SideFlag::kBit ? (count + 7) / 8 : count; }

// ---- the flag in the last bit of negative values
// The nearest value whose last bit is the flag; a zero says it by its sign (+0 right, -0 left).

GANTRY_VECTOR void write_marked(float* to, Rounded y, Vi right) {
  const Vi bits = bits_of(y.value), flag = right & 1;
  // Magnitudes: one up where the rest lies on the far side from zero, else one down.
  const Vi step = y.rest < 0.0f ? (Vi{} + 1) : (Vi{} - 1);
  Vi marked = (bits & 1) == flag ? bits : bits + step;
  marked = y.value == 0.0f ? (right ? Vi{} : Vi{} + INT32_MIN) : marked;
  write(to, reinterpret_cast<Vf>((y.value <= 0.0f) ? marked : bits));
}

GANTRY_VECTOR void write_marked(Bf16* to, Rounded y, Vi right) {
  const Vu flag = reinterpret_cast<Vu>(right & 1), magnitude = reinterpret_cast<Vu>(bits_of(abs(y.value)));
  Vu marked = (((magnitude + (1 - flag) * 65536u) >> 17) * 2 + flag) | 0x8000u;
  marked = y.value == 0.0f ? (right ? Vu{} : Vu{} + 0x8000u) : marked;
  const Vu nearest = __builtin_convertvector(to_half(y.value, Bf16{}), Vu);
  write_bits(to, __builtin_convertvector(y.value <= 0.0f ? marked : nearest, Vh));
}

GANTRY_VECTOR void write_marked(Fp16* to, Rounded y, Vi right) {
  const Vh half = to_half(y.value, Fp16{});
  const Vu flag = reinterpret_cast<Vu>(right & 1), nearest = __builtin_convertvector(half, Vu);
  // Outputs below zero are above -0.28, so that a neighbour always exists; the error of the nearest value chooses it.
  const Vi zero = (nearest & 0x7fffu) == 0;
  const Vi up = (abs(y.value) > abs(from_half(half, Fp16{}))) | zero;
  Vu marked = (nearest & 1) == flag ? nearest : (up ? nearest + 1 : nearest - 1);
  marked = zero ? (right ? Vu{} : Vu{} + 0x8000u) : marked;
  write_bits(to, __builtin_convertvector(y.value <= 0.0f ? marked : nearest, Vh));
}

GANTRY_VECTOR Vi marks(const float* y) {
  const Vi bits = bits_of(read(y));
  return ((bits & 1) != 0) | (bits >= 0);
}

template <class Half>
GANTRY_VECTOR Vi marks(const Half* y) {
  const Vi bits = __builtin_convertvector(read_bits(y), Vi);
  return ((bits & 1) != 0) | ((bits & 0x8000) == 0);
}

// ---- chunks

template <Activation kKind, class T>
GANTRY_VECTOR void forward_chunk(SideFlag side, const T* x, T* y, std::uint8_t* flags) {
  constexpr float kLimit = kFit<kKind>.x_min / kInputScale<kKind>;
  unsigned bits = 0;
  for (int i = 0; i < kChunk; i += kWidth) {
    const Vf input = read(x + i);
    const Vi right = input >= kLimit;
    const Rounded output = activate<kKind, std::is_same_v<T, float>>(input);
    if (side == SideFlag::kLowBit) {
      write_marked(y + i, output, right);
      continue;
    }
    write(y + i, output.value);
    if (side == SideFlag::kBit) bits |= pack_mask(right) << i;
    if (side == SideFlag::kByte) {
      const Vb bytes = __builtin_convertvector(right & 1, Vb);
      std::memcpy(flags + i, &bytes, sizeof(bytes));
    }
  }
  const auto packed = static_cast<std::uint16_t>(bits);
  if (side == SideFlag::kBit) std::memcpy(flags, &packed, sizeof(packed));
}

template <Activation kKind, FitQuality kQuality, class T>
GANTRY_VECTOR void backward_chunk(SideFlag side, const T* y, const T* dy, T* dx, const std::uint8_t* flags) {
  std::uint16_t bits = 0;
  if (side == SideFlag::kBit) std::memcpy(&bits, flags, sizeof(bits));
  for (int i = 0; i < kChunk; i += kWidth) {
    Vi right;
    if (side == SideFlag::kLowBit) {
      right = marks(y + i);
    } else if (side == SideFlag::kBit) {
      right = unpack_mask(static_cast<unsigned>(bits) >> i);
    } else {
      Vb bytes;
      std::memcpy(&bytes, flags + i, sizeof(bytes));
      right = __builtin_convertvector(bytes, Vi) != 0;
    }
    write(dx + i, read(dy + i) * slope_from_output<kKind, kQuality>(read(y + i), right));
  }
}

template <Activation kKind, class T>
void forward(const ActivationForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const bool flagged = args.side == SideFlag::kByte || args.side == SideFlag::kBit;
  for_chunks(begin, end, [&](std::int64_t i, std::int64_t count) {
    const In<T> x(args.x + i, count);
    Out<T> y(args.y + i, count);
    Out<std::uint8_t> flags(args.flags + (flagged ? flag_offset(args.side, i) : 0),
                            count == kChunk ? kChunk : (flagged ? flag_count(args.side, count) : 0));
    forward_chunk<kKind>(args.side, x.at(), y.at(), flags.at());
  });
}

template <Activation kKind, FitQuality kQuality, class T>
void backward(const ActivationBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const bool flagged = args.side != SideFlag::kLowBit;
  for_chunks(begin, end, [&](std::int64_t i, std::int64_t count) {
    const In<T> y(args.y + i, count), dy(args.dy + i, count);
    Out<T> dx(args.dx + i, count);
    const In<std::uint8_t> flags(args.flags + (flagged ? flag_offset(args.side, i) : 0),
                                 count == kChunk ? kChunk : (flagged ? flag_count(args.side, count) : 0));
    backward_chunk<kKind, kQuality>(args.side, y.at(), dy.at(), dx.at(), flags.at());
  });
}

template <Activation kKind, class T>
void exact_backward(const ActivationExactArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_chunks(begin, end, [&](std::int64_t start, std::int64_t count) {
    const In<T> x(args.x + start, count), dy(args.dy + start, count);
    Out<T> dx(args.dx + start, count);
    T unused[kChunk];
    Out<T> y(args.y == nullptr ? unused : args.y + start, count);
    for (int i = 0; i < kChunk; i += kWidth) {
      const ValueAndSlope both = activate_with_slope<kKind, std::is_same_v<T, float>>(read(x.at() + i));
      write(dx.at() + i, read(dy.at() + i) * both.slope);
      write(y.at() + i, both.value);
    }
  });
}

}  // namespace

template <class T>
void activation_forward(const ActivationForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_kind(args.kind, [&]<Activation kKind>() { forward<kKind>(args, begin, end); });
}

template <class T>
void activation_backward(const ActivationBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_kind(args.kind, [&]<Activation kKind>() {
    if (args.quality == FitQuality::kFast) {
      backward<kKind, FitQuality::kFast>(args, begin, end);
    } else {
      backward<kKind, FitQuality::kAccurate>(args, begin, end);
    }
  });
}

template <class T>
void activation_exact_backward(const ActivationExactArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_kind(args.kind, [&]<Activation kKind>() { exact_backward<kKind>(args, begin, end); });
}

#define GANTRY_INSTANTIATE(T)                                                                         \
  template void activation_forward<T>(const ActivationForwardArgs<T>&, std::int64_t, std::int64_t);   \
  template void activation_backward<T>(const ActivationBackwardArgs<T>&, std::int64_t, std::int64_t); \
  template void activation_exact_backward<T>(const ActivationExactArgs<T>&, std::int64_t, std::int64_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
