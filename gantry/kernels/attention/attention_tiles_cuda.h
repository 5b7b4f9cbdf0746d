#pragma once
// Parts of the attention kernels: tiles in shared memory, products of tiles in registers, masks, dropout bits. A block
// of 256 threads is a square of 16 x 16: the thread at (row, column) has kQueries / 16 neighbouring rows and, of a
// row's keys, every sixteenth. So a row belongs to the half of a warp. Products run in fp32 on the ordinary units.
#include <cstdint>

#include "gantry/kernels/attention/flash_raw.h"
#include "gantry/kernels/device/dropout.h"
#include "gantry/kernels/device/reduce.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kSide = 16;
/// Of kernels: 128 registers a thread at most, so that two blocks fit into a multiprocessor.
inline constexpr int kBlocksTogether = 2;

/// Tiles for heads of at most kDim elements. Rows in shared memory are four floats longer than their contents: aligned
/// for float4, and sixteen of them begin in different banks.
template <int kDim_, int kQueries_, int kKeys_>
struct TileShape {
  static constexpr int kDim = kDim_, kQueries = kQueries_, kKeys = kKeys_;
  static constexpr int kRow = kDim + 4, kScoreRow = kKeys + 4;
  static constexpr int kRows = kQueries / kSide, kColumns = kKeys / kSide;  // of a thread's scores
  static constexpr int kQueryTile = kQueries * kRow, kKeyTile = kKeys * kRow, kScoreTile = kQueries * kScoreRow;
  static constexpr int kKeepBytes = kQueries * kKeys / 8;
};

__device__ inline int thread_row() { return static_cast<int>(threadIdx.x) / kSide; }
__device__ inline int thread_column() { return static_cast<int>(threadIdx.x) % kSide; }
__device__ inline float minus_infinity() { return -INFINITY; }

/// Which tile of which head a block works on, from a one-dimensional grid of tiles x heads x batch.
struct TilePlace {
  std::int64_t b, head, begin;
};

__device__ inline TilePlace tile_place(std::int64_t tiles, std::int64_t heads, int tile) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) / tiles;
  return {item / heads, item % heads, static_cast<std::int64_t>(blockIdx.x) % tiles * tile};
}

/// Rows [begin, begin + kRows) of one head into a tile of S, as fp32; zero behind the length and the head size.
template <class S, int kRows, class T>
__device__ void load_rows(const HeadView<const T>& view, std::int64_t b, std::int64_t head, std::int64_t begin,
                          std::int64_t length, std::int64_t dim, float* to) {
  const T* from = view.data + b * view.batch + begin * view.token + head * view.head;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * S::kDim; i += kTileThreads) {
    const int row = i / S::kDim, d = i % S::kDim;
    to[row * S::kRow + d] = begin + row < length && d < dim ? to_float(from[row * view.token + d]) : 0.0f;
  }
}

/// Elements of a tile's row that products have to read: the head size, rounded up to float4.
__device__ inline int tile_dim(const FlashShape& s) { return static_cast<int>(s.head_dim + 3) / 4 * 4; }

/// sums[r][c] = row r of this thread in `a` times row column + 16 c of `b`; rows are S::kRow apart, `dim` elements
/// count.
template <class S, int kRows, int kColumns>
__device__ void dot_rows(const float* a, const float* b, int dim, float (&sums)[kRows][kColumns]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums[r][c] = 0.0f;
  }
  const float *left = a + thread_row() * kRows * S::kRow, *right = b + thread_column() * S::kRow;
#pragma unroll 4
  for (int d = 0; d < dim; d += 4) {
    float4 x[kRows], y[kColumns];
#pragma unroll
    for (int r = 0; r < kRows; ++r) x[r] = *reinterpret_cast<const float4*>(left + r * S::kRow + d);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) y[c] = *reinterpret_cast<const float4*>(right + c * kSide * S::kRow + d);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] += x[r].x * y[c].x;
        sums[r][c] += x[r].y * y[c].y;
        sums[r][c] += x[r].z * y[c].z;
        sums[r][c] += x[r].w * y[c].w;
      }
    }
  }
}

/// Of a result [rows, head size] this thread has, in each of its rows, elements 4 column + 64 i + (0 to 3).
template <class S>
constexpr int kResultColumns = S::kDim / kSide;

__device__ inline int result_column(int i) { return 4 * thread_column() + i / 4 * 64 + i % 4; }

/// sums[r][.] += sum over j of weights[r kRowStride + j kStepStride] times row j of `values`, for this thread's rows.
template <class S, int kSteps, int kRowStride, int kStepStride, int kRows>
__device__ void add_product(const float* weights, const float* values, float (&sums)[kRows][kResultColumns<S>]) {
  const float *left = weights + thread_row() * kRows * kRowStride, *right = values + 4 * thread_column();
#pragma unroll 2
  for (int j = 0; j < kSteps; ++j) {
    float weight[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) weight[r] = left[r * kRowStride + j * kStepStride];
#pragma unroll
    for (int i = 0; i < kResultColumns<S>; i += 4) {
      const float4 value = *reinterpret_cast<const float4*>(right + j * S::kRow + i * kSide);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        sums[r][i] += weight[r] * value.x;
        sums[r][i + 1] += weight[r] * value.y;
        sums[r][i + 2] += weight[r] * value.z;
        sums[r][i + 3] += weight[r] * value.w;
      }
    }
  }
}

/// Writes this thread's part of a result, its rows times factors[r].
template <class S, int kRows, class T>
__device__ void put_rows(const HeadView<T>& view, const TilePlace& place, std::int64_t length, std::int64_t dim,
                         const float (&sums)[kRows][kResultColumns<S>], const float (&factors)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = place.begin + thread_row() * kRows + r;
    if (row >= length) continue;
    T* to = view.data + place.b * view.batch + row * view.token + place.head * view.head;
#pragma unroll
    for (int i = 0; i < kResultColumns<S>; ++i) {
      if (result_column(i) < dim) put(to + result_column(i), sums[r][i] * factors[r]);
    }
  }
}

/// Keys that query t of sequence b may see are [first, last), minus those that masks hide.
struct KeyRange {
  std::int64_t first, last;
};

__device__ inline KeyRange visible_keys(const FlashShape& s, std::int64_t b, std::int64_t t) {
  const std::int64_t first = s.row_starts == nullptr ? 0 : s.row_starts[b * s.q_length + t];
  const std::int64_t last = s.causal ? s.k_length - s.q_length + t + 1 : s.k_length;
  return {first < 0 ? 0 : first, last < s.k_length ? last : s.k_length};
}

/// Keys that any query of a tile can see, from the beginning of a tile of keys on.
template <class S>
__device__ KeyRange tile_keys(const FlashShape& s, std::int64_t b, std::int64_t begin) {
  const std::int64_t end = begin + S::kQueries < s.q_length ? begin + S::kQueries : s.q_length;
  KeyRange all = visible_keys(s, b, end - 1);  // the last one sees farthest
  if (s.row_starts != nullptr) {
    for (std::int64_t t = begin; t < end - 1; ++t) {
      const std::int64_t first = visible_keys(s, b, t).first;
      all.first = first < all.first ? first : all.first;
    }
  }
  all.first = all.first / S::kKeys * S::kKeys;
  return all;
}

/// What query t of (b, head) sees of the tile of keys that begins at `key`, counted from there.
struct RowMask {
  int first, last;
  const std::uint8_t *keys = nullptr, *visible = nullptr;  ///< 0 hides a key; or null
  const float* added = nullptr;                            ///< or null

  template <class S>
  __device__ static RowMask of(const FlashShape& s, const TilePlace& place, std::int64_t t, std::int64_t key) {
    RowMask mask{0, 0};
    if (t >= s.q_length) return mask;
    const KeyRange range = visible_keys(s, place.b, t);
    mask.first = static_cast<int>(range.first <= key ? 0 : range.first - key < S::kKeys ? range.first - key : S::kKeys);
    mask.last = static_cast<int>(range.last <= key ? 0 : range.last - key < S::kKeys ? range.last - key : S::kKeys);
    const std::int64_t at = place.b * s.mask.batch + place.head * s.mask.head + t * s.mask.query + key;
    if (s.key_mask != nullptr) mask.keys = s.key_mask + place.b * s.k_length + key;
    if (s.mask.visible != nullptr) mask.visible = s.mask.visible + at;
    if (s.mask.added != nullptr) mask.added = s.mask.added + at;
    return mask;
  }
  /// Minus infinity where the query does not see the key, else the score with what the mask adds.
  __device__ float apply(int key, float score) const {
    if (key < first || key >= last || (keys != nullptr && keys[key] == 0)) return minus_infinity();
    if (visible != nullptr) return visible[key] != 0 ? score : minus_infinity();
    if (added == nullptr) return score;
    return added[key] <= kHiddenScore ? minus_infinity() : score + added[key];
  }
};

/// Scores of this thread, of the tile of queries in `q` and of keys in `k` that begins at `key`.
template <class S>
__device__ void tile_scores(const FlashShape& s, const TilePlace& place, std::int64_t key, const float* q,
                            const float* k, float (&scores)[S::kRows][S::kColumns]) {
  dot_rows<S>(q, k, tile_dim(s), scores);
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) {
    const RowMask mask = RowMask::of<S>(s, place, place.begin + thread_row() * S::kRows + r, key);
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      scores[r][c] = mask.apply(thread_column() + c * kSide, scores[r][c] * s.scale);
    }
  }
}

/// Dropout of one launch.
struct Dropping {
  DropoutRule rule;
  float scale;               ///< of what is kept
  std::uint64_t row_blocks;  ///< blocks of bits from one query's row to the next

  explicit Dropping(const FlashShape& s)
      : rule(s.dropout), scale(keep_scale(s.dropout.threshold)), row_blocks(attention_block(s, 0, 0, 1)) {}
};

/// Keep bits of a tile, kKeys / 8 bytes a query, into shared memory; nothing without dropout. Keys of several threads
/// share one draw.
template <class S>
__device__ void draw_keep(const Dropping& dropping, const FlashShape& s, const TilePlace& place, std::int64_t key,
                          std::uint8_t* keep) {
  if (dropping.rule.threshold == 0) return;
  const std::int64_t first_row = (place.b * s.heads + place.head) * s.q_length + place.begin;
  for (int i = static_cast<int>(threadIdx.x); i < S::kKeepBytes; i += kTileThreads) {
    const std::int64_t row = first_row + i / (S::kKeys / 8), block = key / 8 + i % (S::kKeys / 8);
    keep[i] = static_cast<std::uint8_t>(keep_byte(
        dropping.rule, static_cast<std::uint64_t>(row) * dropping.row_blocks + static_cast<std::uint64_t>(block)));
  }
}

/// What dropout multiplies the probability of row r and column c of this thread with.
template <class S>
__device__ float tile_factor(const Dropping& dropping, const std::uint8_t* keep, int r, int c) {
  if (dropping.rule.threshold == 0) return 1.0f;
  const int query = thread_row() * S::kRows + r, key = thread_column() + c * kSide;
  return keep_factor(keep[query * (S::kKeys / 8) + key / 8], key, dropping.scale);
}

/// A probability before dropout and what dropout multiplied it with.
struct Weight {
  float probability, factor;
};

/// Largest score so far and sum of exp(score - largest) of this thread's rows, the same in a row's sixteen threads. NaN
/// spreads; a row without a key has the sum 0.
template <class S>
struct Softmax {
  float maximum[S::kRows], sum[S::kRows];

  __device__ Softmax() {
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) maximum[r] = minus_infinity(), sum[r] = 0.0f;
  }
  /// What exponents are taken relative to: never infinitely small, so that hidden scores give 0 and NaN stays NaN.
  __device__ float base(int r) const { return maximum[r] == minus_infinity() ? 0.0f : maximum[r]; }
  /// Turns a tile's scores of row r into exponentials, under the largest score so far; returns what earlier ones are to
  /// be multiplied with.
  __device__ float add(int r, float (&scores)[S::kColumns]) {
    float peak = scores[0];
#pragma unroll
    for (int c = 1; c < S::kColumns; ++c) peak = fmaxf(peak, scores[c]);
    const float before = maximum[r];
    maximum[r] = fmaxf(before, lanes_max<kSide>(peak));
    const float shrink = expf(before - base(r));
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      scores[c] = expf(scores[c] - base(r));
      total += scores[c];
    }
    sum[r] = sum[r] * shrink + lanes_sum<kSide>(total);
    return shrink;
  }
  __device__ float inverse(int r) const { return sum[r] == 0.0f ? 0.0f : 1.0f / sum[r]; }
};

/// Calls body.template operator()<TileShape>() with the smallest tiles for the head size; at most 256.
template <class Small, class Middle, class Large, class Body>
cudaError_t with_tiles(const FlashShape& s, Body body) {
  if (s.head_dim < 1 || s.head_dim > Large::kDim || s.kv_heads < 1 || s.heads % s.kv_heads != 0)
    return cudaErrorInvalidValue;
  if (s.head_dim <= Small::kDim) return body.template operator()<Small>();
  if (s.head_dim <= Middle::kDim) return body.template operator()<Middle>();
  return body.template operator()<Large>();
}

inline std::int64_t tiles_of(std::int64_t length, int tile) { return (length + tile - 1) / tile; }

}  // namespace gantry::kernels::cuda
