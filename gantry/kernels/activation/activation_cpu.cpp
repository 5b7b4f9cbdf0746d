// Method: Tempo, arXiv 2210.10246, section 3 (the output and one bit instead of the input); the fit is our own, see
// activation_fit.h.
#include <type_traits>
#include <utility>

#include "gantry/kernels/activation/activation_math.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

std::int64_t flag_offset(SideFlag side, std::int64_t i) { return side == SideFlag::kBit ? i / 8 : i; }
std::int64_t flag_count(SideFlag side, std::int64_t count) { return side == SideFlag::kBit ? (count + 7) / 8 : count; }

// ---- the flag in the last bit of negative values
// The nearest value whose last bit is the flag; a zero says it by its sign (+0 right, -0 left).

GANTRY_VECTOR void write_marked(float* to, Rounded y, Vi right) {
  // Unsigned: a negative zero, which is replaced below, may wrap.
  const Vu bits = reinterpret_cast<Vu>(bits_of(y.value)), flag = reinterpret_cast<Vu>(right & 1);
  // Magnitudes: one up where the rest lies on the far side from zero, else one down.
  const Vu step = y.rest < 0.0f ? (Vu{} + 1) : (Vu{} - 1);
  Vu marked = (bits & 1) == flag ? bits : bits + step;
  marked = y.value == 0.0f ? (right ? Vu{} : Vu{} + 0x80000000u) : marked;
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

/// Negative without the flag: left.
GANTRY_VECTOR Mask unmarked(const float* y) {
  const Vi bits = bits_of(read(y));
  return mask_of_signs(bits & ~(bits << 31));
}

template <class Half>
GANTRY_VECTOR Mask unmarked(const Half* y) {
  const Vi bits = __builtin_convertvector(read_bits(y), Vi);
  return mask_of_signs((bits << 16) & ~(bits << 31));
}

// ---- blocks of four vectors: reads, then arithmetic, then writes, so that the four can overlap

inline constexpr int kVectors = 4, kBlock = kVectors * kWidth;

template <class Body>
GANTRY_VECTOR void for_each_vector(Body body) {
  for_each_constant<kVectors>(body);
}

/// What a later block reads or writes. The arithmetic of a block fills the processor's queues, so that without it no
/// block's memory would be asked for before the last one is done.
template <class T>
GANTRY_VECTOR void prefetch_reads(const T* block) {
  for (int i = 0; i < kBlock * static_cast<int>(sizeof(T)); i += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(block) + 4096 + i);
  }
}
template <class T>
GANTRY_VECTOR void prefetch_writes(const T* block) {
  for (int i = 0; i < kBlock * static_cast<int>(sizeof(T)); i += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(block) + 2048 + i, 1);
  }
}

template <Activation kKind, SideFlag kSide, class T>
GANTRY_VECTOR void forward_block(const T* x, T* y, std::uint8_t* flags) {
  constexpr float kLimit = kFit<kKind>.x_min / kInputScale<kKind>;
  Vf input[kVectors];
  Rounded output[kVectors];
  prefetch_reads(x);
  prefetch_writes(y);
  for_each_vector([&](auto i) GANTRY_LAMBDA { input[i] = read(x + i * kWidth); });
  for_each_vector([&](auto i) GANTRY_LAMBDA { output[i] = activate<kKind, std::is_same_v<T, float>>(input[i]); });
  std::uint64_t bits = 0;
  for_each_vector([&](auto i) GANTRY_LAMBDA {
    const Mask right = at_least(input[i], kLimit);
    if constexpr (kSide == SideFlag::kLowBit) {
      write_marked(y + i * kWidth, output[i], lanes_of(right));
    } else {
      write(y + i * kWidth, output[i].value);
    }
    if constexpr (kSide == SideFlag::kBit) bits |= std::uint64_t{pack_mask(right)} << (i * kWidth);
    if constexpr (kSide == SideFlag::kByte) {
      const Vb bytes = __builtin_convertvector(lanes_of(right) & 1, Vb);
      std::memcpy(flags + i * kWidth, &bytes, sizeof(bytes));
    }
  });
  if constexpr (kSide == SideFlag::kBit) std::memcpy(flags, &bits, kBlock / 8);
}

/// The last bits of `bits` are the vector's flags, negated.
template <SideFlag kSide, class T>
GANTRY_VECTOR Mask left_side(const T* y, const std::uint8_t* flags, std::uint64_t bits, int offset) {
  if constexpr (kSide == SideFlag::kLowBit) return unmarked(y + offset);
  if constexpr (kSide == SideFlag::kBit) return unpack_mask(static_cast<unsigned>(bits));
  Vi right;
  for (int i = 0; i < kWidth; ++i) right[i] = flags[offset + i];
  return mask_of_signs(right == 0);
}

template <Activation kKind, FitQuality kQuality, SideFlag kSide, class T>
GANTRY_VECTOR void backward_block(const T* y, const T* dy, T* dx, const std::uint8_t* flags) {
  std::uint64_t bits = 0;
  if constexpr (kSide == SideFlag::kBit) std::memcpy(&bits, flags, kBlock / 8);
  Vf value[kVectors], gradient[kVectors], slope[kVectors];
  Mask left[kVectors];
  prefetch_reads(y);
  prefetch_reads(dy);
  prefetch_writes(dx);
  for_each_vector([&](auto i) GANTRY_LAMBDA {
    value[i] = read(y + i * kWidth);
    gradient[i] = read(dy + i * kWidth);
    left[i] = left_side<kSide>(y, flags, ~bits >> (i * kWidth), i * kWidth);
  });
  slopes_from_outputs<kKind, kQuality, !std::is_same_v<T, float>>(value, left, slope);
  for_each_vector([&](auto i) GANTRY_LAMBDA { write(dx + i * kWidth, gradient[i] * slope[i]); });
}

template <Activation kKind, class T>
GANTRY_VECTOR void exact_block(const T* x, const T* dy, T* dx, T* y) {
  Vf input[kVectors], gradient[kVectors];
  ValueAndSlope both[kVectors];
  prefetch_reads(x);
  prefetch_reads(dy);
  prefetch_writes(dx);
  for_each_vector([&](auto i) GANTRY_LAMBDA {
    input[i] = read(x + i * kWidth);
    gradient[i] = read(dy + i * kWidth);
  });
  for_each_vector([&](auto i)
                      GANTRY_LAMBDA { both[i] = activate_with_slope<kKind, std::is_same_v<T, float>>(input[i]); });
  for_each_vector([&](auto i) GANTRY_LAMBDA {
    write(dx + i * kWidth, gradient[i] * both[i].slope);
    if (y != nullptr) write(y + i * kWidth, both[i].value);
  });
}

/// Room for a last block that is shorter than the others.
template <class T>
struct Padded {
  T at[kBlock] = {};

  void load(const T* from, std::int64_t count) { std::memcpy(static_cast<void*>(at), from, bytes(count)); }
  void store(T* to, std::int64_t count) const { std::memcpy(static_cast<void*>(to), at, bytes(count)); }
  static std::size_t bytes(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(T); }
};

// One call of the block serves whole blocks and the last one: it is inlined, and long.
template <Activation kKind, SideFlag kSide, class T>
void forward(const ActivationForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const bool flagged = kSide == SideFlag::kByte || kSide == SideFlag::kBit;
  Padded<T> x, y;
  Padded<std::uint8_t> flags;
  for (std::int64_t i = begin; i < end; i += kBlock) {
    const std::int64_t count = end - i;
    const bool whole = count >= kBlock;
    std::uint8_t* flags_at = flagged ? args.flags + flag_offset(kSide, i) : nullptr;
    if (!whole) x.load(args.x + i, count);
    forward_block<kKind, kSide>(whole ? args.x + i : x.at, whole ? args.y + i : y.at, whole ? flags_at : flags.at);
    if (whole) continue;
    y.store(args.y + i, count);
    if (flagged) flags.store(flags_at, flag_count(kSide, count));
  }
}

template <Activation kKind, FitQuality kQuality, SideFlag kSide, class T>
void backward(const ActivationBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const bool flagged = kSide != SideFlag::kLowBit;
  Padded<T> y, dy, dx;
  Padded<std::uint8_t> flags;
  for (std::int64_t i = begin; i < end; i += kBlock) {
    const std::int64_t count = end - i;
    const bool whole = count >= kBlock;
    const std::uint8_t* flags_at = flagged ? args.flags + flag_offset(kSide, i) : nullptr;
    if (!whole) {
      y.load(args.y + i, count);
      dy.load(args.dy + i, count);
      if (flagged) flags.load(flags_at, flag_count(kSide, count));
    }
    backward_block<kKind, kQuality, kSide>(whole ? args.y + i : y.at, whole ? args.dy + i : dy.at,
                                           whole ? args.dx + i : dx.at, whole ? flags_at : flags.at);
    if (!whole) dx.store(args.dx + i, count);
  }
}

template <Activation kKind, class T>
void exact_backward(const ActivationExactArgs<T>& args, std::int64_t begin, std::int64_t end) {
  Padded<T> x, dy, dx, y;
  for (std::int64_t i = begin; i < end; i += kBlock) {
    const std::int64_t count = end - i;
    const bool whole = count >= kBlock;
    if (!whole) {
      x.load(args.x + i, count);
      dy.load(args.dy + i, count);
    }
    T* values = args.y == nullptr ? nullptr : args.y + i;
    exact_block<kKind>(whole ? args.x + i : x.at, whole ? args.dy + i : dy.at, whole ? args.dx + i : dx.at,
                       whole || values == nullptr ? values : y.at);
    if (whole) continue;
    dx.store(args.dx + i, count);
    if (values != nullptr) y.store(values, count);
  }
}

/// Calls body.template operator()<side>().
template <class Body>
void for_side(SideFlag side, Body body) {
  switch (side) {
    case SideFlag::kNone: return body.template operator()<SideFlag::kNone>();
    case SideFlag::kByte: return body.template operator()<SideFlag::kByte>();
    case SideFlag::kBit: return body.template operator()<SideFlag::kBit>();
    case SideFlag::kLowBit: return body.template operator()<SideFlag::kLowBit>();
  }
}

}  // namespace

template <class T>
void activation_forward(const ActivationForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_side(args.side, [&]<SideFlag kSide>() {
    for_kind(args.kind, [&]<Activation kKind>() { forward<kKind, kSide>(args, begin, end); });
  });
}

template <class T>
void activation_backward(const ActivationBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for_side(args.side, [&]<SideFlag kSide>() {
    if constexpr (kSide != SideFlag::kNone) {
      for_kind(args.kind, [&]<Activation kKind>() {
        if (args.quality == FitQuality::kFast) {
          backward<kKind, FitQuality::kFast, kSide>(args, begin, end);
        } else {
          backward<kKind, FitQuality::kAccurate, kSide>(args, begin, end);
        }
      });
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
