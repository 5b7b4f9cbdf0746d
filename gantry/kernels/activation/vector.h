#pragma once
// Vectors as wide as the instruction set's registers (16, 8 or 4 fp32 lanes): comparisons and selections, of which the
// activations are full, are slow on GCC vectors wider than a register. Only *_cpu.cpp files include it.
#include <cstdint>
#include <cstring>

#include "gantry/base/half.h"
#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/cpu/bf16.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef GANTRY_ISA_NAMESPACE
#define GANTRY_ISA_NAMESPACE scalar
#endif

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

#if defined(__AVX512F__)
inline constexpr int kWidth = 16;
#elif defined(__AVX2__)
inline constexpr int kWidth = 8;
#else
inline constexpr int kWidth = 4;
#endif

typedef float Vf __attribute__((vector_size(4 * kWidth)));
typedef std::int32_t Vi __attribute__((vector_size(4 * kWidth)));
typedef std::uint32_t Vu __attribute__((vector_size(4 * kWidth)));
typedef std::uint16_t Vh __attribute__((vector_size(2 * kWidth)));
typedef std::int8_t Vb __attribute__((vector_size(kWidth)));

#define GANTRY_VECTOR inline __attribute__((always_inline))

GANTRY_VECTOR Vf all(float value) {
  Vf result;
  for (int i = 0; i < kWidth; ++i) result[i] = value;
  return result;
}
GANTRY_VECTOR Vi bits_of(Vf v) { return reinterpret_cast<Vi>(v); }
GANTRY_VECTOR Vf abs(Vf v) { return reinterpret_cast<Vf>(bits_of(v) & 0x7fffffff); }
GANTRY_VECTOR Vf max(Vf a, Vf b) { return a > b ? a : b; }
GANTRY_VECTOR Vf min(Vf a, Vf b) { return a < b ? a : b; }

// ---- what GCC's operators do not have; zero-masked forms because the plain ones of GCC 12 warn of an undefined
// operand

#if defined(__AVX512F__)
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm512_maskz_sqrt_ps(0xffff, __m512(v))); }
GANTRY_VECTOR Vf fma(Vf a, Vf b, Vf c) { return Vf(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c))); }
GANTRY_VECTOR unsigned pack_mask(Vi mask) { return _mm512_movepi32_mask(__m512i(mask)); }
GANTRY_VECTOR Vi unpack_mask(unsigned bits) { return Vi(_mm512_movm_epi32(static_cast<__mmask16>(bits))); }
#else
#if defined(__AVX2__)
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm256_sqrt_ps(__m256(v))); }
GANTRY_VECTOR Vf fma(Vf a, Vf b, Vf c) { return Vf(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c))); }
GANTRY_VECTOR unsigned pack_mask(Vi mask) {
  return static_cast<unsigned>(_mm256_movemask_ps(__m256(reinterpret_cast<Vf>(mask))));
}
#else
#if defined(__x86_64__)
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm_sqrt_ps(__m128(v))); }
GANTRY_VECTOR unsigned pack_mask(Vi mask) {
  return static_cast<unsigned>(_mm_movemask_ps(__m128(reinterpret_cast<Vf>(mask))));
}
#else
GANTRY_VECTOR Vf sqrt(Vf v) {
  Vf result;
  for (int i = 0; i < kWidth; ++i) result[i] = __builtin_sqrtf(v[i]);
  return result;
}
GANTRY_VECTOR unsigned pack_mask(Vi mask) {
  unsigned bits = 0;
  for (int i = 0; i < kWidth; ++i) bits |= (static_cast<unsigned>(mask[i]) & 1u) << i;
  return bits;
}
#endif
// The product is exact in double precision; one more rounding is below what the callers need.
GANTRY_VECTOR Vf fma(Vf a, Vf b, Vf c) {
  Vf result;
  for (int i = 0; i < kWidth; ++i) {
    result[i] = static_cast<float>(static_cast<double>(a[i]) * static_cast<double>(b[i]) + static_cast<double>(c[i]));
  }
  return result;
}
#endif
GANTRY_VECTOR Vi unpack_mask(unsigned bits) {
  Vi lane;
  for (int i = 0; i < kWidth; ++i) lane[i] = 1 << i;
  return (lane & static_cast<std::int32_t>(bits)) != 0;
}
#endif

template <int kCount>
GANTRY_VECTOR Vf polynomial(const float (&coefficients)[kCount], Vf x) {
  Vf sum = all(coefficients[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// ---- storage types

GANTRY_VECTOR Vh to_half(Vf value, Bf16) {
  const Vu bits = reinterpret_cast<Vu>(value);
  const Vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return __builtin_convertvector(value == value ? rounded : (bits >> 16) | 0x40u, Vh);
}
GANTRY_VECTOR Vf from_half(Vh half, Bf16) { return reinterpret_cast<Vf>(__builtin_convertvector(half, Vu) << 16); }

GANTRY_VECTOR Vh to_half(Vf value, Fp16) {
#if defined(__AVX512F__)
  return Vh(_mm512_maskz_cvtps_ph(0xffff, __m512(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  return Vh(_mm256_cvtps_ph(__m256(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  Vh half;
  for (int i = 0; i < kWidth; ++i) half[i] = base::float_to_fp16(value[i]);
  return half;
#endif
}
GANTRY_VECTOR Vf from_half(Vh half, Fp16) {
#if defined(__AVX512F__)
  return Vf(_mm512_maskz_cvtph_ps(0xffff, __m256i(half)));
#elif defined(__AVX2__)
  return Vf(_mm256_cvtph_ps(__m128i(half)));
#else
  Vf result;
  for (int i = 0; i < kWidth; ++i) result[i] = base::fp16_to_float(half[i]);
  return result;
#endif
}

GANTRY_VECTOR Vf read(const float* from) {
  Vf value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
GANTRY_VECTOR void write(float* to, Vf value) { std::memcpy(to, &value, sizeof(value)); }

template <class Half>
GANTRY_VECTOR Vh read_bits(const Half* from) {
  Vh half;
  std::memcpy(&half, from, sizeof(half));
  return half;
}
template <class Half>
GANTRY_VECTOR Vf read(const Half* from) {
  return from_half(read_bits(from), Half{});
}
template <class Half>
GANTRY_VECTOR void write_bits(Half* to, Vh half) {
  std::memcpy(to, &half, sizeof(half));
}
template <class Half>
GANTRY_VECTOR void write(Half* to, Vf value) {
  write_bits(to, to_half(value, Half{}));
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
