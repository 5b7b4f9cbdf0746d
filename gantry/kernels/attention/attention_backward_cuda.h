#pragma once
// Kernels of the backward pass, shared by the forms that recompute probabilities and that kept them. Only
// *_backward_cuda.cu files include it; each brings a type of its own for what it knows of a query and of the keys from
// `key` on, with
//   Row(args, query, key)                            query: its place among [batch, heads, q_length]
//   Weight weight<S>(dropping, keep, score, r, c)    of row r and column c of this thread
#include "gantry/kernels/attention/attention_tiles_cuda.h"

namespace gantry::kernels::cuda {

using BackwardSmall = TileShape<64, 32, 64>;
using BackwardMiddle = TileShape<128, 32, 32>;
using BackwardLarge = TileShape<256, 16, 16>;

/// rowsum(dout * out) of each query, one warp a row: [batch, heads, q_length].
template <class Args>
__global__ void __launch_bounds__(kTileThreads, kBlocksTogether) delta_kernel(Args args) {
  const FlashShape& s = args.shape;
  const std::int64_t row = global_thread() / 32, lane = threadIdx.x % 32;
  const bool inside = row < s.batch * s.heads * s.q_length;
  const std::int64_t t = row % s.q_length, head = row / s.q_length % s.heads, b = row / s.q_length / s.heads;
  float sum = 0.0f;
  if (inside) {
    const auto* out = args.out.data + b * args.out.batch + t * args.out.token + head * args.out.head;
    const auto* dout = args.dout.data + b * args.dout.batch + t * args.dout.token + head * args.dout.head;
    for (std::int64_t d = lane; d < s.head_dim; d += 32) sum = fmaf(to_float(out[d]), to_float(dout[d]), sum);
  }
  sum = lanes_sum(sum);
  if (inside && lane == 0) args.scratch[row] = sum;
}

/// The parts of shared memory.
template <class S>
struct BackwardTiles {
  float *q, *dout, *k, *v, *p, *ds;
  std::uint8_t* keep;

  static constexpr std::size_t kBytes =
      sizeof(float) * (2 * S::kQueryTile + 2 * S::kKeyTile + 2 * S::kScoreTile) + S::kKeepBytes;

  __device__ BackwardTiles() {
    q = dynamic_shared<float>();
    dout = q + S::kQueryTile;
    k = dout + S::kQueryTile;
    v = k + S::kKeyTile;
    p = v + S::kKeyTile;
    ds = p + S::kScoreTile;
    keep = reinterpret_cast<std::uint8_t*>(ds + S::kScoreTile);
  }
};

/// Of a tile of queries and keys: the probabilities that reached the output into tiles.p, the gradient of q.k into
/// tiles.ds; that of the scaled scores to args.dscores if `writes` and there is such a place.
template <class S, class Row, class Args>
__device__ void score_tile(const Args& args, const Dropping& dropping, const TilePlace& place, std::int64_t key,
                           const BackwardTiles<S>& tiles, bool writes) {
  const FlashShape& s = args.shape;
  float p[S::kRows][S::kColumns] = {}, dp[S::kRows][S::kColumns];
  if constexpr (Args::kNeedsKeys) tile_scores<S>(s, place, key, tiles.q, tiles.k, p);
  dot_rows<S>(tiles.dout, tiles.v, tile_dim(s), dp);
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) {
    const int row = thread_row() * S::kRows + r;
    const std::int64_t t = place.begin + row, query = (place.b * s.heads + place.head) * s.q_length + t;
    const int there = t >= s.q_length ? 0 : static_cast<int>(s.k_length - key < S::kKeys ? s.k_length - key : S::kKeys);
    const std::int64_t known = there > 0 ? query : 0;  // rows behind the last one read the first
    const Row weights(args, known, key);
    const float delta = args.scratch[known];
    float* dscores = writes && args.dscores != nullptr ? args.dscores + query * s.k_length + key : nullptr;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      const int column = thread_column() + c * kSide;
      Weight weight{0.0f, 0.0f};
      if (column < there) weight = weights.template weight<S>(dropping, tiles.keep, p[r][c], r, c);
      const float change = column < there ? weight.probability * (dp[r][c] * weight.factor - delta) : 0.0f;
      tiles.p[row * S::kScoreRow + column] = weight.probability * weight.factor;
      tiles.ds[row * S::kScoreRow + column] = change * s.scale;
      if (column < there && dscores != nullptr) dscores[column] = change;
    }
  }
}

/// dq of one tile of queries.
template <class S, class Row, class Args>
__global__ void __launch_bounds__(kTileThreads, kBlocksTogether) dq_kernel(Args args, Dropping dropping) {
  const FlashShape& s = args.shape;
  const TilePlace place = tile_place((s.q_length + S::kQueries - 1) / S::kQueries, s.heads, S::kQueries);
  const std::int64_t kv_head = place.head / (s.heads / s.kv_heads);
  const BackwardTiles<S> tiles;
  if (Args::kNeedsKeys) {
    load_rows<S, S::kQueries>(args.q, place.b, place.head, place.begin, s.q_length, s.head_dim, tiles.q);
  }
  load_rows<S, S::kQueries>(args.dout, place.b, place.head, place.begin, s.q_length, s.head_dim, tiles.dout);
  float dq[S::kRows][kResultColumns<S>] = {}, ones[S::kRows];
  const KeyRange range = tile_keys<S>(s, place.b, place.begin);
  for (std::int64_t key = range.first; key < range.last; key += S::kKeys) {
    __syncthreads();  // the tile before has been read
    load_rows<S, S::kKeys>(args.k, place.b, kv_head, key, s.k_length, s.head_dim, tiles.k);
    load_rows<S, S::kKeys>(args.v, place.b, kv_head, key, s.k_length, s.head_dim, tiles.v);
    if (Args::kNeedsKeys) draw_keep<S>(dropping, s, place, key, tiles.keep);
    __syncthreads();
    score_tile<S, Row>(args, dropping, place, key, tiles, true);
    __syncthreads();
    add_product<S, S::kKeys, S::kScoreRow, 1>(tiles.ds, tiles.k, dq);
  }
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) ones[r] = 1.0f;
  put_rows<S>(args.dq, place, s.q_length, s.head_dim, dq, ones);
}

/// dk and dv of one tile of keys: all queries of all heads of its group, in order.
template <class S, class Row, class Args>
__global__ void __launch_bounds__(kTileThreads, kBlocksTogether) dkv_kernel(Args args, Dropping dropping) {
  const FlashShape& s = args.shape;
  const TilePlace keys = tile_place((s.k_length + S::kKeys - 1) / S::kKeys, s.kv_heads, S::kKeys);
  const std::int64_t group = s.heads / s.kv_heads;
  const BackwardTiles<S> tiles;
  if (Args::kNeedsKeys) {
    load_rows<S, S::kKeys>(args.k, keys.b, keys.head, keys.begin, s.k_length, s.head_dim, tiles.k);
  }
  load_rows<S, S::kKeys>(args.v, keys.b, keys.head, keys.begin, s.k_length, s.head_dim, tiles.v);
  float dk[S::kColumns][kResultColumns<S>] = {}, dv[S::kColumns][kResultColumns<S>] = {}, ones[S::kColumns];
  const std::int64_t query_tiles = (s.q_length + S::kQueries - 1) / S::kQueries;
  for (std::int64_t item = 0; item < group * query_tiles; ++item) {
    const TilePlace place{keys.b, keys.head * group + item / query_tiles, item % query_tiles * S::kQueries};
    const KeyRange range = tile_keys<S>(s, place.b, place.begin);
    if (keys.begin < range.first || keys.begin >= range.last) continue;  // the same for all threads
    __syncthreads();                                                     // the tile before has been read
    load_rows<S, S::kQueries>(args.q, place.b, place.head, place.begin, s.q_length, s.head_dim, tiles.q);
    load_rows<S, S::kQueries>(args.dout, place.b, place.head, place.begin, s.q_length, s.head_dim, tiles.dout);
    if (Args::kNeedsKeys) draw_keep<S>(dropping, s, place, keys.begin, tiles.keep);
    __syncthreads();
    score_tile<S, Row>(args, dropping, place, keys.begin, tiles, false);
    __syncthreads();
    add_product<S, S::kQueries, 1, S::kScoreRow>(tiles.p, tiles.dout, dv);
    add_product<S, S::kQueries, 1, S::kScoreRow>(tiles.ds, tiles.q, dk);
  }
#pragma unroll
  for (int r = 0; r < S::kColumns; ++r) ones[r] = 1.0f;
  put_rows<S>(args.dk, keys, s.k_length, s.head_dim, dk, ones);
  put_rows<S>(args.dv, keys, s.k_length, s.head_dim, dv, ones);
}

/// All three kernels.
template <class Row, class Args>
cudaError_t attention_backward(const Args& args, cudaStream_t stream) {
  const FlashShape& s = args.shape;
  return with_tiles<BackwardSmall, BackwardMiddle, BackwardLarge>(s, [&]<class S>() {
    constexpr std::size_t kBytes = BackwardTiles<S>::kBytes;
    const std::int64_t rows = s.batch * s.heads * s.q_length;
    const std::int64_t queries = tiles_of(s.q_length, S::kQueries) * s.heads * s.batch;
    const std::int64_t keys = tiles_of(s.k_length, S::kKeys) * s.kv_heads * s.batch;
    cudaError_t error = cudaSuccess;
    if (rows != 0)
      error = launch(delta_kernel<Args>, {blocks_for(32 * rows, kTileThreads), kTileThreads, 0, stream}, args);
    if (error == cudaSuccess && queries != 0) {
      error = launch(dq_kernel<S, Row, Args>, {static_cast<unsigned>(queries), kTileThreads, kBytes, stream}, args,
                     Dropping(s));
    }
    if (error == cudaSuccess && keys != 0) {
      error = launch(dkv_kernel<S, Row, Args>, {static_cast<unsigned>(keys), kTileThreads, kBytes, stream}, args,
                     Dropping(s));
    }
    return error;
  });
}

}  // namespace gantry::kernels::cuda
