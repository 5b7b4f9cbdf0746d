#include <algorithm>

#include "gantry/kernels/attention/flash_tiles.h"
#include "gantry/kernels/attention/stored_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kQ = kFlashQueryTile;
constexpr std::int64_t kK = kFlashKeyTile;

struct Tiles {
  float* keys;    // transposed tiles
  float* values;  // [padded, head_dim]
  float* scores;  // [padded / kK, kQ, kK]
  float* q;       // [kQ, head_dim]
  float* out;     // [kQ, head_dim]
};

Tiles lay_out(float* scratch, std::int64_t padded, std::int64_t dim) {
  Tiles tiles;
  tiles.keys = scratch;
  tiles.values = tiles.keys + padded * dim;
  tiles.scores = tiles.values + padded * dim;
  tiles.q = tiles.scores + kQ * padded;
  tiles.out = tiles.q + kQ * dim;
  return tiles;
}

float* score_row(const Tiles& tiles, std::int64_t key, std::int64_t r) { return tiles.scores + key * kQ + r * kK; }

// A row whose scores are all minus infinity sees nothing, unless comparisons have skipped a NaN.
bool sees_nothing(const Tiles& tiles, std::int64_t r, VisibleRange range) {
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    F32x16 s[4];
    for (int v = 0; v < 4; ++v) s[v] = load(score_row(tiles, key, r) + v * kLanes);
    if (any_nan(s)) return false;
  }
  return true;
}

// Softmax of row r over the keys of `range`, in place. A row that sees nothing becomes zeros.
void softmax_row(const Tiles& tiles, std::int64_t r, VisibleRange range) {
  F32x16 peaks = splat(-__builtin_inff());
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    for (int v = 0; v < 4; ++v) peaks = max(peaks, load(score_row(tiles, key, r) + v * kLanes));
  }
  const float peak = reduce_max(peaks);
  const bool blind = peak == -__builtin_inff() && sees_nothing(tiles, r, range);
  F32x16 total = {};
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    float* row = score_row(tiles, key, r);
    for (int v = 0; v < 4; ++v) {
      const F32x16 p = blind ? F32x16{} : score_exp(load(row + v * kLanes) - peak);
      total += p;
      store(row + v * kLanes, p);
    }
  }
  const float inverse = blind ? 0.0f : 1.0f / reduce_add(total);
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    float* row = score_row(tiles, key, r);
    for (int v = 0; v < 4; ++v) store(row + v * kLanes, load(row + v * kLanes) * inverse);
  }
}

// Writes 64 probabilities of which `count` exist, with their sign bits, and leaves in `row` what reaches the output.
template <class T>
GANTRY_INLINE void keep_row(float* row, const std::uint8_t* keep, float kept, T* to, std::int64_t count) {
  for (int v = 0; v < 4 && v * kLanes < count; ++v) {
    const std::int64_t lanes = count - v * kLanes < kLanes ? count - v * kLanes : kLanes;
    const F32x16 p = load(row + v * kLanes);
    const F32x16 factors = keep == nullptr ? splat(1.0f) : keep_factors(keep_bits_at(keep + 2 * v), kept);
    const U32x16 sign = reinterpret_cast<U32x16>(factors == F32x16{}) & 0x80000000u;
    T rounded[kLanes];
    store(rounded, p);  // the output is made of what backward will see
    store(row + v * kLanes, load(rounded) * factors);
    set(to + v * kLanes, reinterpret_cast<F32x16>(reinterpret_cast<U32x16>(load(rounded)) | sign), lanes);
  }
}

template <class T>
void keep_tile_rows(const StoredForwardArgs<T>& args, const Tiles& tiles, std::int64_t b, std::int64_t head,
                    std::int64_t begin, std::int64_t rows, std::int64_t key) {
  const FlashShape& s = args.shape;
  const bool drops = s.dropout.threshold != 0;
  KeepTile keep;
  if (drops) keep_tile(s, b, head, begin, rows, key, &keep);
  for (std::int64_t r = 0; r < rows; ++r) {
    keep_row(score_row(tiles, key, r), drops ? keep.bytes[r] : nullptr, keep_scale(s.dropout.threshold),
             args.p + ((b * s.heads + head) * s.q_length + begin + r) * s.k_length + key, s.k_length - key);
  }
}

// Keys outside `range`, which no query of the tile sees.
template <class T>
void clear_unseen(const StoredForwardArgs<T>& args, std::int64_t row, std::int64_t rows, VisibleRange range) {
  const std::int64_t length = args.shape.k_length;
  const std::int64_t first = range.first < range.last ? range.first : length;
  const std::int64_t last = range.first < range.last ? (range.last + kK - 1) / kK * kK : length;
  for (std::int64_t r = row; r < row + rows; ++r) {
    T* p = args.p + r * length;
    std::fill(p, p + std::min(first, length), T{});
    if (last < length) std::fill(p + last, p + length, T{});
  }
}

template <class T>
void query_tile(const StoredForwardArgs<T>& args, const Tiles& tiles, std::int64_t b, std::int64_t head,
                std::int64_t begin, std::int64_t rows) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  copy_rows(args.q, b, head, begin, rows, dim, s.scale, tiles.q);
  std::memset(tiles.out, 0, static_cast<std::size_t>(rows * dim) * sizeof(float));
  const VisibleRange range = tile_range(s, b, begin, rows);
  clear_unseen(args, (b * s.heads + head) * s.q_length + begin, rows, range);
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    panel_gemm({tiles.q, dim, 1}, tiles.keys + key * dim, kK, score_row(tiles, key, 0), kK, rows, kK, dim, false);
    hide_keys(s, score_row(tiles, key, 0), b, head, begin, rows, key);
  }
  for (std::int64_t r = 0; r < rows; ++r) softmax_row(tiles, r, range);
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    keep_tile_rows(args, tiles, b, head, begin, rows, key);
    panel_gemm({score_row(tiles, key, 0), kK, 1}, tiles.values + key * dim, dim, tiles.out, dim, rows, dim, kK, true);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    T* out = args.out.data + b * args.out.batch + (begin + r) * args.out.token + head * args.out.head;
    for (std::int64_t d = 0; d < dim; d += kLanes) store(out + d, load(tiles.out + r * dim + d));
  }
}

}  // namespace

template <class T>
void stored_forward(const StoredForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const FlashShape& s = args.shape;
  const Tiles tiles = lay_out(args.scratch, flash_padded_keys(s), s.head_dim);
  PackedKeys packed;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.heads, head = item % s.heads;
    pack_keys(s, args.k, args.v, b, head, tiles.keys, tiles.values, &packed);
    for (std::int64_t t = 0; t < s.q_length; t += kQ) {
      query_tile(args, tiles, b, head, t, s.q_length - t < kQ ? s.q_length - t : kQ);
    }
  }
}

template void stored_forward<float>(const StoredForwardArgs<float>&, std::int64_t, std::int64_t);
template void stored_forward<Bf16>(const StoredForwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
