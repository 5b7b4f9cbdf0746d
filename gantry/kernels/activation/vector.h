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

// ---- what GCC's operators do not have; zero-masked forms because the plain ones of GCC 12 warn of an undefined
// operand. max and min are a > b ? a : b and a < b ? a : b also for NaN; GCC makes two instructions of those. Mask has
// a truth value a lane: a register of bits where there are such, else lanes of 0 and -1.

#if defined(__AVX512F__)
GANTRY_VECTOR Vf max(Vf a, Vf b) { return Vf(_mm512_maskz_max_ps(0xffff, __m512(a), __m512(b))); }
GANTRY_VECTOR Vf min(Vf a, Vf b) { return Vf(_mm512_maskz_min_ps(0xffff, __m512(a), __m512(b))); }
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm512_maskz_sqrt_ps(0xffff, __m512(v))); }
GANTRY_VECTOR Vf fma(Vf a, Vf b, Vf c) { return Vf(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c))); }
typedef __mmask16 Mask;
GANTRY_VECTOR Mask at_least(Vf v, float bound) { return _mm512_cmp_ps_mask(__m512(v), __m512(all(bound)), _CMP_GE_OQ); }
GANTRY_VECTOR Mask mask_of_signs(Vi v) { return _mm512_movepi32_mask(__m512i(v)); }
GANTRY_VECTOR Vi lanes_of(Mask mask) { return Vi(_mm512_movm_epi32(mask)); }
GANTRY_VECTOR unsigned pack_mask(Mask mask) { return mask; }
GANTRY_VECTOR Mask unpack_mask(unsigned bits) { return static_cast<Mask>(bits); }
GANTRY_VECTOR Vf select(Mask mask, Vf a, Vf b) { return Vf(_mm512_mask_blend_ps(mask, __m512(b), __m512(a))); }
#else
typedef Vi Mask;
GANTRY_VECTOR Mask at_least(Vf v, float bound) { return v >= bound; }
GANTRY_VECTOR Mask mask_of_signs(Vi v) { return v < 0; }
GANTRY_VECTOR Vi lanes_of(Mask mask) { return mask; }
GANTRY_VECTOR Vf select(Mask mask, Vf a, Vf b) { return mask ? a : b; }
#if defined(__AVX2__)
GANTRY_VECTOR Vf max(Vf a, Vf b) { return Vf(_mm256_max_ps(__m256(a), __m256(b))); }
GANTRY_VECTOR Vf min(Vf a, Vf b) { return Vf(_mm256_min_ps(__m256(a), __m256(b))); }
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm256_sqrt_ps(__m256(v))); }
GANTRY_VECTOR Vf fma(Vf a, Vf b, Vf c) { return Vf(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c))); }
GANTRY_VECTOR unsigned pack_mask(Mask mask) {
  return static_cast<unsigned>(_mm256_movemask_ps(__m256(reinterpret_cast<Vf>(mask))));
}
#else
#if defined(__x86_64__)
GANTRY_VECTOR Vf max(Vf a, Vf b) { return Vf(_mm_max_ps(__m128(a), __m128(b))); }
GANTRY_VECTOR Vf min(Vf a, Vf b) { return Vf(_mm_min_ps(__m128(a), __m128(b))); }
GANTRY_VECTOR Vf sqrt(Vf v) { return Vf(_mm_sqrt_ps(__m128(v))); }
GANTRY_VECTOR unsigned pack_mask(Mask mask) {
  return static_cast<unsigned>(_mm_movemask_ps(__m128(reinterpret_cast<Vf>(mask))));
}
#else
GANTRY_VECTOR Vf max(Vf a, Vf b) { return a > b ? a : b; }
GANTRY_VECTOR Vf min(Vf a, Vf b) { return a < b ? a : b; }
GANTRY_VECTOR Vf sqrt(Vf v) {
  Vf result;
  for (int i = 0; i < kWidth; ++i) result[i] = __builtin_sqrtf(v[i]);
  return result;
}
GANTRY_VECTOR unsigned pack_mask(Mask mask) {
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
GANTRY_VECTOR Mask unpack_mask(unsigned bits) {
  Vi lane;
  for (int i = 0; i < kWidth; ++i) lane[i] = 1 << i;
  return (lane & static_cast<std::int32_t>(bits)) != 0;
}
#endif

/// Of numbers from 1e-36 to 1e36, relative error 2e-7, kRough: 6e-5. The square root of sixteen lanes takes 12 cycles
/// on Intel's processors; an estimate and a step of Newton's method take half of that.
template <bool kRough>
GANTRY_VECTOR Vf quick_sqrt(Vf v) {
#if defined(__AVX512F__)
  const Vf inverse = Vf(_mm512_maskz_rsqrt14_ps(0xffff, __m512(v)));
  const Vf root = v * inverse;
  return kRough ? root : root + root * (0.5f - root * (inverse * 0.5f));
#else
  return sqrt(v);
#endif
}

/// v = mantissa 2^exponent, mantissa in [1, 2), for normal v > 0.
struct BinaryParts {
  Vf exponent, mantissa;
};
GANTRY_VECTOR BinaryParts binary_parts(Vf v) {
#if defined(__AVX512F__)
  return {Vf(_mm512_maskz_getexp_ps(0xffff, __m512(v))),
          Vf(_mm512_maskz_getmant_ps(0xffff, __m512(v), _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src))};
#else
  const Vi exponent = bits_of(v) >> 23;
  return {__builtin_convertvector(exponent - 127, Vf),
          reinterpret_cast<Vf>(bits_of(v) - (exponent << 23) + 0x3f800000)};
#endif
}

/// a b + c; rounded once wherever the processor can, also where the compiler would share the product.
GANTRY_VECTOR Vf multiply_add(Vf a, Vf b, Vf c) {
#if defined(__AVX2__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// Index into a table of sixteen for lookup(), which reads its last four bits: n < 8, plus 8 in lanes of the mask.
GANTRY_VECTOR Vi table_index(Vi n, Mask upper) {
#if defined(__AVX512F__)
  return Vi(_mm512_mask_or_epi32(__m512i(n), upper, __m512i(n), _mm512_set1_epi32(8)));
#else
  return n | (upper & 8);
#endif
}
/// Elements of a table aligned to its size.
GANTRY_VECTOR Vf lookup(const float (&table)[16], Vi index) {
#if defined(__AVX512F__)
  return Vf(_mm512_maskz_permutexvar_ps(0xffff, __m512i(index), _mm512_load_ps(table)));
#elif defined(__AVX2__)
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), __m256i(index));
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), __m256i(index));
  return Vf(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(__m256i(index << 28))));
#else
  Vf result;
  for (int i = 0; i < kWidth; ++i) result[i] = table[index[i] & 15];
  return result;
#endif
}

template <int kCount>
GANTRY_VECTOR Vf polynomial(const float (&coefficients)[kCount], Vf x) {
  Vf sum = all(coefficients[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// ---- storage types

GANTRY_VECTOR Vh low_words(Vu v) {
#if defined(__AVX512F__)
  return Vh(_mm512_maskz_cvtepi32_epi16(0xffff, __m512i(v)));
#elif defined(__AVX2__)
  return Vh(_mm_packus_epi32(_mm256_castsi256_si128(__m256i(v)), _mm256_extracti128_si256(__m256i(v), 1)));
#else
  return __builtin_convertvector(v, Vh);
#endif
}
GANTRY_VECTOR Vu words(Vh v) {
#if defined(__AVX512F__)
  return Vu(_mm512_maskz_cvtepu16_epi32(0xffff, __m256i(v)));
#elif defined(__AVX2__)
  return Vu(_mm256_cvtepu16_epi32(__m128i(v)));
#else
  return __builtin_convertvector(v, Vu);
#endif
}

/// Where the processor has an instruction for it, denormal values become zero.
GANTRY_VECTOR Vh to_half(Vf value, Bf16) {
#if defined(__AVX512BF16__)
  return Vh(_mm512_maskz_cvtneps_pbh(0xffff, __m512(value)));
#else
  const Vu bits = reinterpret_cast<Vu>(value);
  const Vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return low_words(value == value ? rounded : (bits >> 16) | 0x40u);
#endif
}
GANTRY_VECTOR Vf from_half(Vh half, Bf16) { return reinterpret_cast<Vf>(words(half) << 16); }

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
