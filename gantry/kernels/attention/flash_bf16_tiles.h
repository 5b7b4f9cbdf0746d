#pragma once
// Parts shared by the forward and the backward pass of attention with bf16 products: visibility, dropout bits, the
// exponential, and operands brought into tiles. Only flash_*_bf16_cpu.cpp files include it.
#include <type_traits>

#include "gantry/kernels/attention/flash_bf16_raw.h"
#include "gantry/kernels/attention/flash_tiles.h"
#include "gantry/kernels/cpu/bf16_product.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr float kHidden = -__builtin_inff();  ///< score of a hidden key, log-sum of a query that sees nothing

inline float* aligned_scratch(float* scratch) {
  return reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(scratch) + 63) / 64 * 64);
}

inline Bf16* as_bf16(float* scratch) { return reinterpret_cast<Bf16*>(scratch); }

/// 2^x with relative error below 3e-6, a thousandth of what rounding to bf16 costs; 0 below 2^-126, NaN kept.
GANTRY_INLINE F32x16 exp2_score(F32x16 x) {
  const F32x16 n = reinterpret_cast<F32x16>(_mm512_maskz_roundscale_ps(0xffff, reinterpret_cast<__m512>(x), 0));
  const F32x16 f = x - n;
  F32x16 p = splat(9.5701019112e-3f);
  p = p * f + 5.5917860319e-2f;
  p = p * f + 2.4024744828e-1f;
  p = p * f + 6.9312181474e-1f;
  p = p * f + 9.9999926145e-1f;
  const __mmask16 normal =
      _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(splat(-126.0f)), _CMP_NLT_UQ);
  return reinterpret_cast<F32x16>(
      _mm512_maskz_scalef_ps(normal, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
}

/// The largest lane; NaN may be skipped.
GANTRY_INLINE float largest(F32x16 v) {
  const F32x8 low = low_half(v), high = high_half(v), eight = low > high ? low : high;
  const F32x4 left = __builtin_shufflevector(eight, eight, 0, 1, 2, 3);
  const F32x4 right = __builtin_shufflevector(eight, eight, 4, 5, 6, 7), four = left > right ? left : right;
  const float even = four[0] > four[2] ? four[0] : four[2], odd = four[1] > four[3] ? four[1] : four[3];
  return even > odd ? even : odd;
}

/// 32 values, the first sixteen from `low`.
GANTRY_INLINE __m512i narrow(F32x16 low, F32x16 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low));
}

/// Zero where the bit of `keep` is not set.
GANTRY_INLINE F32x16 keep_lanes(F32x16 v, std::uint32_t keep) {
  return reinterpret_cast<F32x16>(_mm512_maskz_mov_ps(static_cast<__mmask16>(keep), reinterpret_cast<__m512>(v)));
}

/// Keys that some query of a tile sees, [any.first, any.last), and keys that all of them see by their positions.
struct TileSight {
  VisibleRange any, all;
};

inline TileSight tile_sight(const FlashShape& s, std::int64_t b, std::int64_t begin, std::int64_t rows) {
  const VisibleRange first = visible(s, b, begin), last = visible(s, b, begin + rows - 1);
  TileSight sight{{first.first, last.last}, {last.first, first.last}};
  for (std::int64_t t = begin; s.row_starts != nullptr && t < begin + rows; ++t) {  // in any order
    const std::int64_t start = visible(s, b, t).first;
    sight.any.first = start < sight.any.first ? start : sight.any.first;
    sight.all.first = start > sight.all.first ? start : sight.all.first;
  }
  return sight;
}

/// True where every row of a tile sees every key of [key, key + width), and nothing is added to a score.
inline bool sees_all(const FlashShape& s, const TileSight& sight, std::int64_t key, std::int64_t width) {
  return s.key_mask == nullptr && !has_mask(s) && sight.all.first <= key && key + width <= sight.all.last;
}

/// Lanes i with first <= i < last.
GANTRY_INLINE __mmask16 lanes_between(std::int64_t first, std::int64_t last) {
  const auto clamp = [](std::int64_t i) { return i < 0 ? 0 : (i > kLanes ? kLanes : static_cast<int>(i)); };
  const std::uint32_t below_last = (1u << clamp(last)) - 1, below_first = (1u << clamp(first)) - 1;
  return static_cast<__mmask16>(below_last & ~below_first);
}

/// Sixteen scores of a query from key `at` on: with what a mask adds (then they are scaled first), and minus infinity
/// for hidden keys. `mask_row` is the offset of the query's row in the mask.
GANTRY_INLINE F32x16 hide_vector(const FlashShape& s, F32x16 score, const std::uint8_t* key_mask, std::int64_t mask_row,
                                 std::int64_t at, __mmask16 seen) {
  if (key_mask != nullptr) {
    const __m128i bytes = _mm_maskz_loadu_epi8(seen, key_mask + at);
    seen = _mm_mask_test_epi8_mask(seen, bytes, bytes);
  }
  if (s.mask.visible != nullptr) {
    const __m128i bytes = _mm_maskz_loadu_epi8(seen, s.mask.visible + mask_row + at);
    seen = _mm_mask_test_epi8_mask(seen, bytes, bytes);
  }
  if (has_mask(s)) score *= s.scale;
  if (s.mask.added != nullptr) {
    const __m512 added = _mm512_maskz_loadu_ps(seen, s.mask.added + mask_row + at);
    seen = _mm512_mask_cmp_ps_mask(seen, added, reinterpret_cast<__m512>(splat(kHiddenScore)), _CMP_NLE_UQ);
    score += reinterpret_cast<F32x16>(added);
  }
  return reinterpret_cast<F32x16>(
      _mm512_mask_mov_ps(reinterpret_cast<__m512>(splat(kHidden)), seen, reinterpret_cast<__m512>(score)));
}

/// Rows [begin, begin + rows) of scores of keys [key, key + width), `stride` floats apart: hidden keys and the mask.
inline void hide_block(const FlashShape& s, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t rows,
                       std::int64_t key, std::int64_t width, float* scores, std::int64_t stride) {
  const std::uint8_t* key_mask = s.key_mask == nullptr ? nullptr : s.key_mask + b * s.k_length;
  for (std::int64_t r = 0; r < rows; ++r) {
    const VisibleRange range = visible(s, b, begin + r);
    const std::int64_t mask_row = b * s.mask.batch + head * s.mask.head + (begin + r) * s.mask.query;
    float* row = scores + r * stride;
    for (std::int64_t v = 0; v < width; v += kLanes) {
      const __mmask16 seen = lanes_between(range.first - key - v, range.last - key - v);
      store(row + v, hide_vector(s, load(row + v), key_mask, mask_row, key + v, seen));
    }
  }
}

/// What scores are multiplied with to become exponents of 2: hide_block() has scaled them where there is a mask.
inline float score_factor(const FlashShape& s) { return has_mask(s) ? kLog2e : s.scale * kLog2e; }

/// Keep bits of kRows queries and up to kKeys keys from `key`, a multiple of 8, in groups of 64 keys.
template <std::int64_t kRows, std::int64_t kKeys>
struct BlockKeep {
  std::uint8_t bytes[kKeys / 64][kRows][8];

  void draw(const FlashShape& s, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t rows,
            std::int64_t key, std::int64_t width) {
    for (std::int64_t g = 0; g * 64 < width; ++g) {
      philox_keep_rows(s.dropout, attention_block(s, b, head, begin) + static_cast<std::uint64_t>(key / 8 + 8 * g),
                       static_cast<std::uint64_t>((s.k_length + 7) / 8), rows, bytes[g][0]);
    }
  }
  /// Bits of 32 keys from the v-th on.
  GANTRY_INLINE std::uint32_t at(std::int64_t row, std::int64_t v) const {
    std::uint32_t bits;
    std::memcpy(&bits, bytes[v / 64][row] + v % 64 / 8, sizeof(bits));
    return bits;
  }
};

template <class T>
GANTRY_INLINE T* row_of(const HeadView<T>& view, std::int64_t b, std::int64_t head, std::int64_t t) {
  return view.data + b * view.batch + t * view.token + head * view.head;
}

/// Asks for row t of a head. Rows lie kilobytes apart, where the processor foresees nothing.
template <class T>
GANTRY_INLINE void prefetch_row(const HeadView<T>& view, std::int64_t b, std::int64_t head, std::int64_t t,
                                std::int64_t dim) {
  for (std::int64_t d = 0; d < dim; d += 32) __builtin_prefetch(row_of(view, b, head, t) + d, !std::is_const_v<T>, 2);
}

/// Rows [t, t + 32) of a head of `length` rows, as rows of `wide` elements (whole tiles), zeros behind the head's own.
inline void pack_rows(const HeadView<const Bf16>& view, std::int64_t b, std::int64_t head, std::int64_t t,
                      std::int64_t length, std::int64_t dim, Bf16* to) {
  const std::int64_t wide = round_up(dim, kTileDepth);
  for (std::int64_t i = 0; i < kTileDepth; ++i) {
    Bf16* row = to + i * wide;
    if (t + i >= length) {
      std::memset(row, 0, static_cast<std::size_t>(wide) * sizeof(Bf16));
      continue;
    }
    if (t + i + kTileDepth < length) prefetch_row(view, b, head, t + i + kTileDepth, dim);
    const Bf16* from = row_of(view, b, head, t + i);
    for (std::int64_t d = 0; d < dim; d += kLanes) std::memcpy(row + d, from + d, kLanes * sizeof(Bf16));
    if (wide > dim) std::memset(row + dim, 0, kLanes * sizeof(Bf16));
  }
}

/// Columns of 32 bits of 16 rows, `row` elements apart, as 16 rows of 16.
GANTRY_INLINE void transpose_words(const Bf16* from, std::int64_t row, Bf16* to) {
  const I32x16 count = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const I32x16 rows = count * static_cast<std::int32_t>(row / 2);
  for (std::int64_t i = 0; i < 16; ++i) {
    const __m512i column =
        _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, reinterpret_cast<__m512i>(rows), from + 2 * i, 4);
    std::memcpy(to + i * 32, &column, sizeof(column));
  }
}

// From 32 rows as pack_rows() leaves them, of which `to` gets a part of its own of 32 * wide or 32 * dim elements:

/// The rows transposed as tiles of B: tile (d / 32, row / 16) at row * wide + d * 16.
inline void pack_transposed(const Bf16* rows, std::int64_t dim, Bf16* to) {
  const std::int64_t wide = round_up(dim, kTileDepth);
  for (std::int64_t i = 0; i < kTileDepth; i += kTileRows) {
    for (std::int64_t d = 0; d < wide; d += kTileDepth) {
      transpose_words(rows + i * wide + d, wide, to + i * wide + d * kTileRows);
    }
  }
}

/// The rows as tiles of B: tile (0, d / 16) at d * 32.
inline void pack_pairs(const Bf16* rows, std::int64_t dim, Bf16* to) {
  const std::int64_t wide = round_up(dim, kTileDepth);
  for (std::int64_t d = 0; d < dim; d += kTileRows) {
    for (std::int64_t i = 0; i < kTileDepth; i += 2) {
      U16x16 even, odd;
      std::memcpy(&even, rows + i * wide + d, sizeof(even));
      std::memcpy(&odd, rows + (i + 1) * wide + d, sizeof(odd));
      const U32x16 words = __builtin_convertvector(even, U32x16) | __builtin_convertvector(odd, U32x16) << 16;
      std::memcpy(to + d * kTileDepth + i * kTileRows, &words, sizeof(words));
    }
  }
}

/// The rows transposed as tiles of A: tile (d / 16, 0) at d * 32, its rows 32 elements apart; from what pack_pairs()
/// made.
inline void pack_columns(const Bf16* pairs, std::int64_t dim, Bf16* to) {
  for (std::int64_t d = 0; d < dim; d += kTileRows) transpose_words(pairs + d * kTileDepth, 32, to + d * kTileDepth);
}

}  // namespace
}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
