#pragma once
// Sixteen fp32 lanes as a GCC vector: one source that becomes AVX-512, two AVX2 or four SSE instructions, depending on
// the flags of the namespace GANTRY_ISA_NAMESPACE it is compiled into. Only files named *_cpu.cpp include it.
#include <cstdint>
#include <cstring>

#include "gantry/kernels/cpu/bf16.h"

#ifndef GANTRY_ISA_NAMESPACE
#define GANTRY_ISA_NAMESPACE scalar
#endif

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

inline constexpr int kLanes = 16;

typedef float F32x16 __attribute__((vector_size(64)));
typedef std::int32_t I32x16 __attribute__((vector_size(64)));
typedef std::uint32_t U32x16 __attribute__((vector_size(64)));
typedef std::uint16_t U16x16 __attribute__((vector_size(32)));

#define GANTRY_INLINE inline __attribute__((always_inline))

// Element by element: a sum with zero would cost an addition and lose the sign of -0.
GANTRY_INLINE F32x16 splat(float value) {
  return F32x16{value, value, value, value, value, value, value, value,
                value, value, value, value, value, value, value, value};
}

GANTRY_INLINE F32x16 load(const float* from) {
  F32x16 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

GANTRY_INLINE F32x16 from_bf16(U16x16 half) {
  return reinterpret_cast<F32x16>(__builtin_convertvector(half, U32x16) << 16);
}

GANTRY_INLINE U16x16 to_bf16(F32x16 value) {
  const U32x16 bits = reinterpret_cast<U32x16>(value);
  const U32x16 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32x16 quiet = (bits >> 16) | 0x40u;
  const I32x16 is_nan = reinterpret_cast<I32x16>(bits & 0x7fffffffu) > 0x7f800000;
  return __builtin_convertvector(is_nan ? quiet : rounded, U16x16);
}

GANTRY_INLINE F32x16 load(const Bf16* from) {
  U16x16 half;
  std::memcpy(&half, from, sizeof(half));
  return from_bf16(half);
}

GANTRY_INLINE void store(float* to, F32x16 value) { std::memcpy(to, &value, sizeof(value)); }

GANTRY_INLINE void store(Bf16* to, F32x16 value) {
  const U16x16 half = to_bf16(value);
  std::memcpy(to, &half, sizeof(half));
}

/// The first `count` (< 16) elements, zeros behind.
template <class T>
GANTRY_INLINE F32x16 load_partial(const T* from, std::int64_t count) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, from, static_cast<std::size_t>(count) * sizeof(T));
  return load(buffer);
}

template <class T>
GANTRY_INLINE void store_partial(T* to, F32x16 value, std::int64_t count) {
  T buffer[kLanes];
  store(buffer, value);
  std::memcpy(to, buffer, static_cast<std::size_t>(count) * sizeof(T));
}

/// Calls body(offset, count) for each full vector (count = 16) and once for a shorter rest.
template <class Body>
GANTRY_INLINE void for_vectors(std::int64_t n, Body body) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, std::int64_t{kLanes});
  if (i < n) body(i, n - i);
}

/// load or load_partial, store or store_partial; the branch folds away inside for_vectors.
template <class T>
GANTRY_INLINE F32x16 get(const T* from, std::int64_t count) {
  return count == kLanes ? load(from) : load_partial(from, count);
}

template <class T>
GANTRY_INLINE void set(T* to, F32x16 value, std::int64_t count) {
  if (count == kLanes) {
    store(to, value);
  } else {
    store_partial(to, value, count);
  }
}

GANTRY_INLINE float to_float(float value) { return value; }
GANTRY_INLINE float to_float(Bf16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

GANTRY_INLINE void from_float(float* to, float value) { *to = value; }
GANTRY_INLINE void from_float(Bf16* to, float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to->bits = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

GANTRY_INLINE F32x16 max(F32x16 a, F32x16 b) { return a > b ? a : b; }
GANTRY_INLINE F32x16 min(F32x16 a, F32x16 b) { return a < b ? a : b; }

typedef float F32x8 __attribute__((vector_size(32)));
typedef float F32x4 __attribute__((vector_size(16)));

GANTRY_INLINE F32x8 low_half(F32x16 v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
GANTRY_INLINE F32x8 high_half(F32x16 v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }

GANTRY_INLINE float reduce_add(F32x16 v) {
  const F32x8 eight = low_half(v) + high_half(v);
  const F32x4 four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

GANTRY_INLINE float reduce_max(F32x16 v) {
  const F32x8 low = low_half(v), high = high_half(v);
  const F32x8 eight = low > high ? low : high;
  float result = eight[0];
  for (int i = 1; i < 8; ++i) result = eight[i] > result ? eight[i] : result;
  return result;
}

/// e^x with relative error below 2e-7 for x in [-87, 88]; 0 below, infinity above, NaN kept.
GANTRY_INLINE F32x16 exp(F32x16 x) {
  const F32x16 clamped = min(max(x, splat(-88.0f)), splat(89.0f));
  // x = n ln 2 + r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer.
  const F32x16 shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const F32x16 n = shifted - 12582912.0f;
  const F32x16 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  F32x16 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two halves, so that n = 128 and denormal results need no special case.
  const I32x16 exponent = __builtin_convertvector(n, I32x16);
  const I32x16 half = exponent >> 1;
  const F32x16 scale1 = reinterpret_cast<F32x16>((half + 127) << 23);
  const F32x16 scale2 = reinterpret_cast<F32x16>((exponent - half + 127) << 23);
  F32x16 result = p * scale1 * scale2;
  result = x < splat(-88.0f) ? F32x16{} : result;
  return x == x ? result : x;
}

GANTRY_INLINE F32x16 sigmoid(F32x16 x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
