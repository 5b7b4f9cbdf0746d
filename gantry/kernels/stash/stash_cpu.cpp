#include <algorithm>

#include "gantry/kernels/activation/chunks.h"
#include "gantry/kernels/stash/stash_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int32_t kInfinityBits = 0x7f800000, kSmallestNormalBits = 0x00800000;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the nearest integer, two's complement

/// The largest magnitude as bits, whose order is that of the numbers, with infinity and then NaN on top.
template <class T>
std::int32_t largest_magnitude(const T* x, std::int64_t n) {
  Vi largest = {};
  for_chunks(0, n, [&](std::int64_t start, std::int64_t count) {
    const In<T> in(x + start, count);
    for (int i = 0; i < kChunk; i += kWidth) {
      const Vi bits = bits_of(abs(read(in.at() + i)));
      largest = bits > largest ? bits : largest;
    }
  });
  std::int32_t result = 0;
  for (int i = 0; i < kWidth; ++i) result = std::max(result, static_cast<std::int32_t>(largest[i]));
  return result;
}

/// A 127th, rounded up to bf16; NaN for what is not finite.
float scale_of(std::int32_t magnitude) {
  if (magnitude >= kInfinityBits) return __builtin_nanf("");
  float value;
  std::memcpy(&value, &magnitude, sizeof(value));
  value /= 127.0f;
  std::int32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = std::max((bits + 0xffff) & ~0xffff, kSmallestNormalBits);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class T>
float largest_finite(T) {
  return 3.40282347e38f;
}
float largest_finite(Bf16) { return 3.38953139e38f; }
float largest_finite(Fp16) { return 65504.0f; }

}  // namespace

template <class T>
void stash(const StashArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t group = begin; group < end; ++group) {
    const std::int64_t first = group * kStashGroup, n = std::min(kStashGroup, args.n - first);
    const float scale = scale_of(largest_magnitude(args.x + first, n));
    std::uint32_t scale_bits;
    std::memcpy(&scale_bits, &scale, sizeof(scale));
    args.scales[group].bits = static_cast<std::uint16_t>(scale_bits >> 16);
    const float inverse = 1.0f / scale;
    for_chunks(first, first + n, [&](std::int64_t start, std::int64_t count) {
      const In<T> in(args.x + start, count);
      Out<std::int8_t> out(args.values + start, count);
      for (int i = 0; i < kChunk; i += kWidth) {
        const Vb packed = __builtin_convertvector(bits_of(read(in.at() + i) * inverse + kRound), Vb);
        std::memcpy(out.at() + i, &packed, sizeof(packed));
      }
    });
  }
}

template <class T>
void unstash(const UnstashArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const Vf highest = all(largest_finite(T{}));
  for (std::int64_t group = begin; group < end; ++group) {
    const std::int64_t first = group * kStashGroup, n = std::min(kStashGroup, args.n - first);
    const std::uint32_t scale_bits = static_cast<std::uint32_t>(args.scales[group].bits) << 16;
    float scale;
    std::memcpy(&scale, &scale_bits, sizeof(scale));
    for_chunks(first, first + n, [&](std::int64_t start, std::int64_t count) {
      const In<std::int8_t> in(args.values + start, count);
      Out<T> out(args.x + start, count);
      for (int i = 0; i < kChunk; i += kWidth) {
        Vb packed;
        std::memcpy(&packed, in.at() + i, sizeof(packed));
        Vf value = __builtin_convertvector(packed, Vf) * scale;
        value = value > highest ? highest : value;  // NaN passes both
        value = value < -highest ? -highest : value;
        write(out.at() + i, value);
      }
    });
  }
}

#define GANTRY_INSTANTIATE(T)                                              \
  template void stash<T>(const StashArgs<T>&, std::int64_t, std::int64_t); \
  template void unstash<T>(const UnstashArgs<T>&, std::int64_t, std::int64_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
