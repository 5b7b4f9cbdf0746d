#pragma once
// Parts shared by the forward and the backward tiles of flash attention. Only flash_*_cpu.cpp files include it.
#include "gantry/kernels/attention/flash_raw.h"
#include "gantry/kernels/cpu/panel_gemm.h"
#include "gantry/kernels/cpu/philox.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

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
