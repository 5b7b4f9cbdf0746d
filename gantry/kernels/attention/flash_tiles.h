#pragma once
// Parts shared by the forward and the backward tiles of flash attention. Only flash_*_cpu.cpp files include it.
#include "gantry/kernels/attention/flash_raw.h"
#include "gantry/kernels/cpu/panel_gemm.h"
#include "gantry/kernels/cpu/philox.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

#if defined(__AVX2__) && !defined(__AVX512F__)
typedef std::int32_t I32x8 __attribute__((vector_size(32)));

GANTRY_INLINE F32x8 half_exp(F32x8 x) {
  const auto all = [](float v) { return F32x8{v, v, v, v, v, v, v, v}; };
  F32x8 clamped = x > all(-88.0f) ? x : all(-88.0f);
  clamped = clamped < all(89.0f) ? clamped : all(89.0f);
  const F32x8 shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const F32x8 n = shifted - 12582912.0f;
  const F32x8 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  F32x8 p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const I32x8 exponent = __builtin_convertvector(n, I32x8);
  const I32x8 half = exponent >> 1;
  const F32x8 scale1 = reinterpret_cast<F32x8>((half + 127) << 23);
  const F32x8 scale2 = reinterpret_cast<F32x8>((exponent - half + 127) << 23);
  F32x8 result = p * scale1 * scale2;
  result = x < all(-88.0f) ? F32x8{} : result;
  return x == x ? result : x;
}
#endif

/// exp() of simd.h, bit for bit, in two halves on AVX2: GCC keeps vectors wider than the registers in memory.
GANTRY_INLINE F32x16 score_exp(F32x16 x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const F32x8 halves[2] = {half_exp(low_half(x)), half_exp(high_half(x))};
  F32x16 result;
  std::memcpy(&result, halves, sizeof(result));
  return result;
#else
  return exp(x);
#endif
}

/// The log-sum of a query that sees nothing.
inline constexpr float kBlindLogSum = -__builtin_inff();

/// Keys that query t of sequence b may see are [first, last), minus those that key_mask hides.
struct VisibleRange {
  std::int64_t first, last;
};

GANTRY_INLINE VisibleRange visible(const FlashShape& s, std::int64_t b, std::int64_t t) {
  const std::int64_t first = s.row_starts == nullptr ? 0 : s.row_starts[b * s.q_length + t];
  const std::int64_t last = s.causal ? s.k_length - s.q_length + t + 1 : s.k_length;
  return {first < 0 ? 0 : first, last < 0 ? 0 : last};
}

/// Rows [begin, begin + count) of one head as fp32, packed.
template <class T>
void copy_rows(const HeadView<const T>& view, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t count,
               std::int64_t dim, float factor, float* to) {
  for (std::int64_t t = 0; t < count; ++t) {
    const T* from = view.data + b * view.batch + (begin + t) * view.token + head * view.head;
    for (std::int64_t d = 0; d < dim; d += kLanes) store(to + t * dim + d, load(from + d) * factor);
  }
}

/// The whole head transposed, tile by tile: key j at to[(j / 64 * dim + d) * 64 + j % 64]; keys beyond the length are
/// zero. A tile is one contiguous block: rows as long as the head would meet in a few sets of the cache.
template <class T>
void copy_transposed(const HeadView<const T>& view, std::int64_t b, std::int64_t head, std::int64_t length,
                     std::int64_t padded, std::int64_t dim, float* to) {
  for (std::int64_t j = 0; j < padded; ++j) {
    float* tile = to + j / kFlashKeyTile * kFlashKeyTile * dim + j % kFlashKeyTile;
    if (j >= length) {
      for (std::int64_t d = 0; d < dim; ++d) tile[d * kFlashKeyTile] = 0.0f;
      continue;
    }
    const T* from = view.data + b * view.batch + j * view.token + head * view.head;
    for (std::int64_t d = 0; d < dim; ++d) tile[d * kFlashKeyTile] = to_float(from[d]);
  }
}

/// Whose keys and values lie in the scratch.
struct PackedKeys {
  std::int64_t batch = -1, kv_head = -1;
};

/// Keys (transposed tiles) and values (rows, zero behind the last) of the group of query head `head`, unless there
/// already.
template <class T>
void pack_keys(const FlashShape& s, const HeadView<const T>& k, const HeadView<const T>& v, std::int64_t b,
               std::int64_t head, float* keys, float* values, PackedKeys* packed) {
  const std::int64_t dim = s.head_dim, padded = flash_padded_keys(s), kv_head = head / (s.heads / s.kv_heads);
  if (packed->batch == b && packed->kv_head == kv_head) return;
  *packed = {b, kv_head};
  copy_transposed(k, b, kv_head, s.k_length, padded, dim, keys);
  copy_rows(v, b, kv_head, 0, s.k_length, dim, 1.0f, values);
  std::memset(values + s.k_length * dim, 0, static_cast<std::size_t>((padded - s.k_length) * dim) * sizeof(float));
}

/// Hides what query row t must not see of the tile's keys [key, key + 64) by writing -infinity.
inline void mask_row(const FlashShape& s, std::int64_t b, std::int64_t t, std::int64_t key, float* row) {
  constexpr float kHidden = -__builtin_inff();
  const VisibleRange range = visible(s, b, t);
  for (std::int64_t j = 0; j < kFlashKeyTile && key + j < range.first; ++j) row[j] = kHidden;
  for (std::int64_t j = range.last > key ? range.last - key : 0; j < kFlashKeyTile; ++j) row[j] = kHidden;
  if (s.key_mask == nullptr) return;
  const std::uint8_t* mask = s.key_mask + b * s.k_length + key;
  for (std::int64_t j = 0; j < kFlashKeyTile && key + j < s.k_length; ++j) {
    if (mask[j] == 0) row[j] = kHidden;
  }
}

inline bool has_mask(const FlashShape& s) { return s.mask.added != nullptr || s.mask.visible != nullptr; }

/// What the mask adds to the scores of query t and the tile's keys [key, key + 64): minus infinity where it hides one.
inline void mask_addends(const FlashShape& s, std::int64_t b, std::int64_t head, std::int64_t t, std::int64_t key,
                         float* to) {
  constexpr float kHidden = -__builtin_inff();
  const std::int64_t at = b * s.mask.batch + head * s.mask.head + t * s.mask.query + key;
  const std::int64_t count = s.k_length - key < kFlashKeyTile ? s.k_length - key : kFlashKeyTile;
  for (std::int64_t j = count; j < kFlashKeyTile; ++j) to[j] = 0.0f;
  if (s.mask.visible != nullptr) {
    for (std::int64_t j = 0; j < count; ++j) to[j] = s.mask.visible[at + j] != 0 ? 0.0f : kHidden;
    return;
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const float value = s.mask.added[at + j];
    to[j] = value <= kHiddenScore ? kHidden : value;
  }
}

/// Adds the mask to a tile of scores and writes minus infinity where a query must not see a key.
inline void hide_keys(const FlashShape& s, float* scores, std::int64_t b, std::int64_t head, std::int64_t begin,
                      std::int64_t rows, std::int64_t key) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * kFlashKeyTile;
    if (has_mask(s)) {
      float added[kFlashKeyTile];
      mask_addends(s, b, head, begin + r, key, added);
      for (int v = 0; v < 4; ++v) store(row + v * kLanes, load(row + v * kLanes) + load(added + v * kLanes));
    }
    mask_row(s, b, begin + r, key, row);
  }
}

inline bool any_nan(const F32x16 (&s)[4]) {
  bool found = false;
  for (const F32x16& vector : s) {
    for (int i = 0; i < kLanes; ++i) found |= vector[i] != vector[i];
  }
  return found;
}

/// Keep bits of a tile: 8 bytes a row, rows [begin, begin + count) of one head, keys [key, key + 64).
struct KeepTile {
  std::uint8_t bytes[kFlashQueryTile][kFlashKeyTile / 8];
};

inline void keep_tile(const FlashShape& s, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t count,
                      std::int64_t key, KeepTile* keep) {
  philox_keep_rows(s.dropout, attention_block(s, b, head, begin) + static_cast<std::uint64_t>(key / 8),
                   static_cast<std::uint64_t>((s.k_length + 7) / 8), count, keep->bytes[0]);
}

/// Key tiles that any of the query rows [begin, begin + count) can see, as a range of key positions.
inline VisibleRange tile_range(const FlashShape& s, std::int64_t b, std::int64_t begin, std::int64_t count) {
  VisibleRange all = visible(s, b, begin);
  for (std::int64_t t = begin + 1; t < begin + count; ++t) {
    const VisibleRange range = visible(s, b, t);
    all.first = range.first < all.first ? range.first : all.first;
    all.last = range.last > all.last ? range.last : all.last;
  }
  all.first = all.first / kFlashKeyTile * kFlashKeyTile;
  all.last = all.last < s.k_length ? all.last : s.k_length;
  return all;
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
