#pragma once
// Counter-based random bits for dropout. Method: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC
// 2011), Philox4x32 with 10 rounds. Only *_cpu.cpp files include it.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xd2511f53u, kPhiloxMultiplier1 = 0xcd9e8d57u;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9e3779b9u, kPhiloxWeyl1 = 0xbb67ae85u;
inline constexpr int kPhiloxRounds = 10;

struct PhiloxBlock {
  std::uint32_t words[4];
};

/// One block, the reference: key = (low, high) word of `key`, counter = words of `low`, then of `high`.
inline PhiloxBlock philox(std::uint64_t key, std::uint64_t low, std::uint64_t high) {
  std::uint64_t c0 = low & 0xffffffffu, c1 = low >> 32, c2 = high & 0xffffffffu, c3 = high >> 32;
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t product0 = c0 * kPhiloxMultiplier0, product1 = c2 * kPhiloxMultiplier1;
    c0 = (product1 >> 32) ^ c1 ^ k0;
    c1 = product1 & 0xffffffffu;
    c2 = (product0 >> 32) ^ c3 ^ k1;
    c3 = product0 & 0xffffffffu;
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return {{static_cast<std::uint32_t>(c0), static_cast<std::uint32_t>(c1), static_cast<std::uint32_t>(c2),
           static_cast<std::uint32_t>(c3)}};
}

/// Keep bits of the eight elements of one block, LSB first.
GANTRY_INLINE std::uint8_t philox_keep_byte(const DropoutRule& rule, std::uint64_t block) {
  const PhiloxBlock bits = philox(rule.seed, block, rule.stream);
  unsigned keep = 0;
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t draw = (bits.words[i / 2] >> (16 * (i % 2))) & 0xffffu;
    keep |= static_cast<unsigned>(draw >= rule.threshold) << i;
  }
  return static_cast<std::uint8_t>(keep);
}

// A vector holds one word of as many blocks as it has 64-bit lanes; the upper half of a lane may hold anything between
// the rounds, because the product reads the lower one. Two vectors a word hide the latency of the product.
#if defined(__AVX512F__)
inline constexpr int kPhiloxLanes = 8;
typedef std::uint64_t PhiloxVector __attribute__((vector_size(64)));
// The masked forms: GCC 12 warns about its own header at the plain ones.
GANTRY_INLINE PhiloxVector philox_product(PhiloxVector a, PhiloxVector b) {
  return reinterpret_cast<PhiloxVector>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
// The order of blocks in the lanes that makes the interleaved halves come out in order.
inline constexpr PhiloxVector kPhiloxOrder = {0, 4, 1, 5, 2, 6, 3, 7};

GANTRY_INLINE void philox_store(PhiloxVector low, PhiloxVector high, std::uint16_t threshold, std::uint8_t* keep) {
  const __m512i limit = _mm512_set1_epi16(static_cast<short>(threshold));
  const auto bits = [&](PhiloxVector x) {
    return static_cast<std::uint64_t>(_mm512_cmpge_epu16_mask(reinterpret_cast<__m512i>(x), limit));
  };
  const std::uint64_t all = bits(__builtin_shufflevector(low, high, 0, 8, 2, 10, 4, 12, 6, 14)) |
                            bits(__builtin_shufflevector(low, high, 1, 9, 3, 11, 5, 13, 7, 15)) << 32;
  std::memcpy(keep, &all, sizeof(all));
}
#elif defined(__AVX2__)
inline constexpr int kPhiloxLanes = 4;
typedef std::uint64_t PhiloxVector __attribute__((vector_size(32)));
GANTRY_INLINE PhiloxVector philox_product(PhiloxVector a, PhiloxVector b) {
  return reinterpret_cast<PhiloxVector>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
inline constexpr PhiloxVector kPhiloxOrder = {0, 1, 2, 3};

GANTRY_INLINE void philox_store(PhiloxVector low, PhiloxVector high, std::uint16_t threshold, std::uint8_t* keep) {
  const __m256i limit = _mm256_set1_epi16(static_cast<short>(threshold));
  const auto at_least = [&](__m256i x) { return _mm256_cmpeq_epi16(_mm256_max_epu16(x, limit), x); };
  const auto a = reinterpret_cast<__m256i>(low), b = reinterpret_cast<__m256i>(high);
  const __m256i bytes =
      _mm256_packs_epi16(at_least(_mm256_unpacklo_epi64(a, b)), at_least(_mm256_unpackhi_epi64(a, b)));
  const auto all = static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes));
  std::memcpy(keep, &all, sizeof(all));
}
#endif

#if defined(__AVX2__)
inline constexpr int kPhiloxBatch = 2 * kPhiloxLanes;

/// Keep bytes of kPhiloxLanes blocks from `first` and as many from `second`; the threshold is at most 65535.
GANTRY_INLINE void philox_batch(const DropoutRule& rule, std::uint64_t first, std::uint64_t second,
                                std::uint8_t* keep) {
  PhiloxVector c0[2], c1[2], c2[2], c3[2];
  for (int u = 0; u < 2; ++u) {
    c0[u] = kPhiloxOrder + (u == 0 ? first : second);
    c1[u] = c0[u] >> 32;
    c2[u] = PhiloxVector{} + rule.stream;
    c3[u] = c2[u] >> 32;
  }
  auto k0 = static_cast<std::uint32_t>(rule.seed), k1 = static_cast<std::uint32_t>(rule.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int u = 0; u < 2; ++u) {
      const PhiloxVector product0 = philox_product(c0[u], PhiloxVector{} + kPhiloxMultiplier0);
      const PhiloxVector product1 = philox_product(c2[u], PhiloxVector{} + kPhiloxMultiplier1);
      c0[u] = (product1 >> 32) ^ c1[u] ^ k0;
      c1[u] = product1;
      c2[u] = (product0 >> 32) ^ c3[u] ^ k1;
      c3[u] = product0;
    }
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  for (int u = 0; u < 2; ++u) {
    philox_store((c0[u] & 0xffffffffu) | c1[u] << 32, (c2[u] & 0xffffffffu) | c3[u] << 32,
                 static_cast<std::uint16_t>(rule.threshold), keep + u * kPhiloxLanes);
  }
}
#endif

/// keep[i] = keep bits of block first_block + i, that is of elements 8 (first_block + i) to + 7, for `blocks` blocks.
inline void philox_keep_bytes(const DropoutRule& rule, std::uint64_t first_block, std::int64_t blocks,
                              std::uint8_t* keep) {
  if (rule.threshold == 0 || rule.threshold >= kDropAll) {
    std::memset(keep, rule.threshold == 0 ? 0xff : 0, static_cast<std::size_t>(blocks));
    return;
  }
  std::int64_t i = 0;
#if defined(__AVX2__)
  for (; i < blocks; i += kPhiloxBatch) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(i);
    if (i + kPhiloxBatch <= blocks) {
      philox_batch(rule, block, block + kPhiloxLanes, keep + i);
      continue;
    }
    std::uint8_t rest[kPhiloxBatch];
    philox_batch(rule, block, block + kPhiloxLanes, rest);
    std::memcpy(keep + i, rest, static_cast<std::size_t>(blocks - i));
  }
#endif
  for (; i < blocks; ++i) keep[i] = philox_keep_byte(rule, first_block + static_cast<std::uint64_t>(i));
}

/// Eight blocks a row: keep[8 r + i] = keep bits of block first_block + r * row_blocks + i.
inline void philox_keep_rows(const DropoutRule& rule, std::uint64_t first_block, std::uint64_t row_blocks,
                             std::int64_t rows, std::uint8_t* keep) {
  std::int64_t r = 0;
#if defined(__AVX512F__)
  if (rule.threshold != 0 && rule.threshold < kDropAll) {
    for (; r + 2 <= rows; r += 2) {
      const std::uint64_t block = first_block + static_cast<std::uint64_t>(r) * row_blocks;
      philox_batch(rule, block, block + row_blocks, keep + 8 * r);
    }
  }
#endif
  for (; r < rows; ++r) {
    philox_keep_bytes(rule, first_block + static_cast<std::uint64_t>(r) * row_blocks, 8, keep + 8 * r);
  }
}

/// Keep bits of elements [first, first + count), LSB first, into (count + 7) / 8 bytes; bits behind the last element
/// are zero.
inline void philox_keep_bits(const DropoutRule& rule, std::uint64_t first, std::int64_t count, std::uint8_t* keep) {
  constexpr std::int64_t kChunk = 64;
  const auto shift = static_cast<unsigned>(first % 8);
  const std::int64_t bytes = (count + 7) / 8;
  if (shift == 0) {
    philox_keep_bytes(rule, first / 8, bytes, keep);
  } else {
    for (std::int64_t begin = 0; begin < bytes; begin += kChunk) {
      const std::int64_t n = bytes - begin < kChunk ? bytes - begin : kChunk;
      std::uint8_t aligned[kChunk + 1];
      philox_keep_bytes(rule, first / 8 + static_cast<std::uint64_t>(begin), n + 1, aligned);
      for (std::int64_t i = 0; i < n; ++i) {
        keep[begin + i] = static_cast<std::uint8_t>((aligned[i] | aligned[i + 1] << 8) >> shift);
      }
    }
  }
  if (count % 8 != 0) keep[bytes - 1] = static_cast<std::uint8_t>(keep[bytes - 1] & ((1u << (count % 8)) - 1));
}

/// Lane i: `kept` where bit i of `keep` is set, else zero. Multiplying with it drops and scales; NaN and infinity that
/// are dropped become NaN, as in torch.
GANTRY_INLINE F32x16 keep_factors(std::uint16_t keep, float kept) {
#if defined(__AVX512F__)
  return reinterpret_cast<F32x16>(_mm512_maskz_mov_ps(keep, reinterpret_cast<__m512>(splat(kept))));
#else
  typedef std::int32_t I32x8 __attribute__((vector_size(32)));
  const I32x8 bit = {1, 2, 4, 8, 16, 32, 64, 128};
  F32x8 halves[2];
  for (int h = 0; h < 2; ++h) {
    const std::int32_t byte = (keep >> (8 * h)) & 0xff;
    const I32x8 spread = I32x8{byte, byte, byte, byte, byte, byte, byte, byte} & bit;
    const F32x8 value = {kept, kept, kept, kept, kept, kept, kept, kept};
    halves[h] = reinterpret_cast<F32x8>((spread == bit) & reinterpret_cast<I32x8>(value));
  }
  F32x16 result;
  std::memcpy(&result, halves, sizeof(result));
  return result;
#endif
}

/// The 16 keep bits at byte `keep`.
GANTRY_INLINE std::uint16_t keep_bits_at(const std::uint8_t* keep) {
  std::uint16_t bits;
  std::memcpy(&bits, keep, sizeof(bits));
  return bits;
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
