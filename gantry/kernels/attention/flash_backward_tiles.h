#pragma once
// The backward pass around its tiles of scores, shared by the forms that recompute probabilities and that keep them.
// Only
// *_backward_cpu.cpp files include it.
#include <type_traits>

#include "gantry/kernels/attention/flash_tiles.h"
#include "gantry/kernels/cpu/last_bits.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

struct BackwardTiles {
  float* keys_t;    // transposed tiles
  float* values_t;  // transposed tiles
  float* keys;      // [padded, head_dim]
  float* dk;        // [padded, head_dim]
  float* dv;        // [padded, head_dim]
  float* q;         // [q_length, head_dim]
  float* dout;      // [q_length, head_dim]
  float* dq;        // [q_length, head_dim]
  float* delta;     // [q_length] rowsum(dout * out)
  float* lse;       // [q_length], where scores are recomputed
  float* p;         // [kFlashQueryTile, kFlashKeyTile]
  float* ds;        // [kFlashQueryTile, kFlashKeyTile]
};

inline BackwardTiles lay_out_backward(float* scratch, std::int64_t padded, std::int64_t q_length, std::int64_t dim) {
  BackwardTiles tiles;
  tiles.keys_t = scratch;
  tiles.values_t = tiles.keys_t + padded * dim;
  tiles.keys = tiles.values_t + padded * dim;
  tiles.dk = tiles.keys + padded * dim;
  tiles.dv = tiles.dk + padded * dim;
  tiles.q = tiles.dv + padded * dim;
  tiles.dout = tiles.q + q_length * dim;
  tiles.dq = tiles.dout + q_length * dim;
  tiles.delta = tiles.dq + q_length * dim;
  tiles.lse = tiles.delta + q_length;
  tiles.p = tiles.lse + q_length;
  tiles.ds = tiles.p + kFlashQueryTile * kFlashKeyTile;
  return tiles;
}

template <class T>
float log_sum(const FlashBackwardArgs<T>& args, const T* out, std::int64_t row) {
  if constexpr (std::is_same_v<T, float>) {
    if (args.lse == nullptr) return read_last_bits(out, kBlindLogSum);
  }
  return args.lse[row];
}

template <class Args>
void load_query_head(const Args& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  copy_rows(args.q, b, head, 0, s.q_length, dim, 1.0f, tiles.q);
  copy_rows(args.dout, b, head, 0, s.q_length, dim, 1.0f, tiles.dout);
  for (std::int64_t t = 0; t < s.q_length; ++t) {
    const auto* out = args.out.data + b * args.out.batch + t * args.out.token + head * args.out.head;
    F32x16 sum = {};
    for (std::int64_t d = 0; d < dim; d += kLanes) sum += load(out + d) * load(tiles.dout + t * dim + d);
    tiles.delta[t] = reduce_add(sum);
    if constexpr (Args::kNeedsKeys) tiles.lse[t] = log_sum(args, out, (b * s.heads + head) * s.q_length + t);
  }
  std::memset(tiles.dq, 0, static_cast<std::size_t>(s.q_length * dim) * sizeof(float));
}

template <class Args, class Score>
void backward_query_head(const Args& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head, Score score) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  load_query_head(args, tiles, b, head);
  for (std::int64_t begin = 0; begin < s.q_length; begin += kFlashQueryTile) {
    const std::int64_t rows = s.q_length - begin < kFlashQueryTile ? s.q_length - begin : kFlashQueryTile;
    const VisibleRange range = tile_range(s, b, begin, rows);
    for (std::int64_t key = range.first; key < range.last; key += kFlashKeyTile) {
      score(tiles, b, head, begin, rows, key);
      panel_gemm({tiles.p, 1, kFlashKeyTile}, tiles.dout + begin * dim, dim, tiles.dv + key * dim, dim, kFlashKeyTile,
                 dim, rows, true);
      panel_gemm({tiles.ds, 1, kFlashKeyTile}, tiles.q + begin * dim, dim, tiles.dk + key * dim, dim, kFlashKeyTile,
                 dim, rows, true);
      panel_gemm({tiles.ds, kFlashKeyTile, 1}, tiles.keys + key * dim, dim, tiles.dq + begin * dim, dim, rows, dim,
                 kFlashKeyTile, true);
    }
  }
  for (std::int64_t t = 0; t < s.q_length; ++t) {
    auto* dq = args.dq.data + b * args.dq.batch + t * args.dq.token + head * args.dq.head;
    for (std::int64_t d = 0; d < dim; d += kLanes) store(dq + d, load(tiles.dq + t * dim + d));
  }
}

/// Items [begin, end) of the flattened (batch, kv_head) order; score(tiles, b, head, begin, rows, key) fills tiles.p
/// with the probabilities that reached the output and tiles.ds with the gradient of q.k.
template <class Args, class Score>
void backward_heads(const Args& args, std::int64_t begin, std::int64_t end, Score score) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim, padded = flash_padded_keys(s), group = s.heads / s.kv_heads;
  const BackwardTiles tiles = lay_out_backward(args.scratch, padded, s.q_length, dim);
  const auto head_bytes = static_cast<std::size_t>(padded * dim) * sizeof(float);
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.kv_heads, kv_head = item % s.kv_heads;
    if (Args::kNeedsKeys) copy_transposed(args.k, b, kv_head, s.k_length, padded, dim, tiles.keys_t);
    copy_transposed(args.v, b, kv_head, s.k_length, padded, dim, tiles.values_t);
    std::memset(tiles.keys, 0, head_bytes);
    copy_rows(args.k, b, kv_head, 0, s.k_length, dim, 1.0f, tiles.keys);
    std::memset(tiles.dk, 0, head_bytes);
    std::memset(tiles.dv, 0, head_bytes);
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      backward_query_head(args, tiles, b, head, score);
    for (std::int64_t j = 0; j < s.k_length; ++j) {
      auto* dk = args.dk.data + b * args.dk.batch + j * args.dk.token + kv_head * args.dk.head;
      auto* dv = args.dv.data + b * args.dv.batch + j * args.dv.token + kv_head * args.dv.head;
      for (std::int64_t d = 0; d < dim; d += kLanes) {
        store(dk + d, load(tiles.dk + j * dim + d));
        store(dv + d, load(tiles.dv + j * dim + d));
      }
    }
  }
}

}  // namespace
}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
