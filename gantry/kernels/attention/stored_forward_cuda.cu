#include "gantry/kernels/attention/attention_tiles_cuda.h"
#include "gantry/kernels/attention/stored_cuda.h"

namespace gantry::kernels::cuda {
namespace {

template <class S>
std::size_t shared_bytes() {
  return sizeof(float) * (S::kQueryTile + S::kKeyTile + S::kScoreTile) + S::kKeepBytes;
}

// The tile's row r of this thread in [batch, heads, q_length, k_length].
__device__ std::int64_t stored_row(const FlashShape& s, const TilePlace& place, std::int64_t t) {
  return ((place.b * s.heads + place.head) * s.q_length + t) * s.k_length;
}

// Largest scores and sums of exponentials of the queries in `q`.
template <class S, class T>
__device__ Softmax<S> sum_scores(const StoredForwardArgs<T>& args, const TilePlace& place, std::int64_t kv_head,
                                 KeyRange range, const float* q, float* keys) {
  const FlashShape& s = args.shape;
  Softmax<S> softmax;
  for (std::int64_t key = range.first; key < range.last; key += S::kKeys) {
    __syncthreads();
    load_rows<S, S::kKeys>(args.k, place.b, kv_head, key, s.k_length, s.head_dim, keys);
    __syncthreads();
    float scores[S::kRows][S::kColumns];
    tile_scores<S>(s, place, key, q, keys, scores);
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) softmax.add(r, scores[r]);
  }
  return softmax;
}

// Zeros for the tile's queries and the keys behind `from` and before `to`.
template <class S, class T>
__device__ void clear_keys(const StoredForwardArgs<T>& args, const TilePlace& place, std::int64_t from,
                           std::int64_t to) {
  const FlashShape& s = args.shape;
  for (std::int64_t t = place.begin; t < place.begin + S::kQueries && t < s.q_length; ++t) {
    T* row = args.p + stored_row(s, place, t);
    for (std::int64_t j = from + threadIdx.x; j < to && j < s.k_length; j += kTileThreads) put(row + j, 0.0f);
  }
}

// Writes the probabilities of this thread with their sign bits; what reaches the output, made of the rounded ones, goes
// to `p`.
template <class S, class T>
__device__ void keep_scores(const StoredForwardArgs<T>& args, const TilePlace& place, const Dropping& dropping,
                            std::int64_t key, const std::uint8_t* keep, const Softmax<S>& softmax,
                            const float (&scores)[S::kRows][S::kColumns], float* p) {
  const FlashShape& s = args.shape;
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) {
    const int row = thread_row() * S::kRows + r;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      const std::int64_t t = place.begin + row, j = key + thread_column() + c * kSide;
      const float factor = tile_factor<S>(dropping, keep, r, c);
      T rounded;
      put(&rounded, expf(scores[r][c] - softmax.base(r)) * softmax.inverse(r));
      const float probability = to_float(rounded);
      p[row * S::kScoreRow + thread_column() + c * kSide] = probability * factor;
      if (t < s.q_length && j < s.k_length) {
        put(args.p + stored_row(s, place, t) + j, factor == 0.0f ? -probability : probability);
      }
    }
  }
}

template <class S, class T>
__global__ void __launch_bounds__(kTileThreads, kBlocksTogether)
    stored_forward_kernel(StoredForwardArgs<T> args, Dropping dropping) {
  const FlashShape& s = args.shape;
  const TilePlace place = tile_place((s.q_length + S::kQueries - 1) / S::kQueries, s.heads, S::kQueries);
  const std::int64_t kv_head = place.head / (s.heads / s.kv_heads);
  float* q = dynamic_shared<float>();
  float *keys = q + S::kQueryTile, *p = keys + S::kKeyTile;
  auto* keep = reinterpret_cast<std::uint8_t*>(p + S::kScoreTile);
  load_rows<S, S::kQueries>(args.q, place.b, place.head, place.begin, s.q_length, s.head_dim, q);
  const KeyRange range = tile_keys<S>(s, place.b, place.begin);
  const Softmax<S> softmax = sum_scores<S>(args, place, kv_head, range, q, keys);
  float out[S::kRows][kResultColumns<S>] = {};
  clear_keys<S>(args, place, 0, range.first);
  std::int64_t key = range.first;
  for (; key < range.last; key += S::kKeys) {
    __syncthreads();
    load_rows<S, S::kKeys>(args.k, place.b, kv_head, key, s.k_length, s.head_dim, keys);
    draw_keep<S>(dropping, s, place, key, keep);
    __syncthreads();
    float scores[S::kRows][S::kColumns];
    tile_scores<S>(s, place, key, q, keys, scores);
    keep_scores<S>(args, place, dropping, key, keep, softmax, scores, p);
    __syncthreads();
    load_rows<S, S::kKeys>(args.v, place.b, kv_head, key, s.k_length, s.head_dim, keys);
    __syncthreads();
    add_product<S, S::kKeys, S::kScoreRow, 1>(p, keys, out);
  }
  clear_keys<S>(args, place, key, s.k_length);
  float ones[S::kRows];
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) ones[r] = 1.0f;
  put_rows<S>(args.out, place, s.q_length, s.head_dim, out, ones);
}

}  // namespace

template <class T>
cudaError_t stored_forward(const StoredForwardArgs<T>& args, cudaStream_t stream) {
  const FlashShape& s = args.shape;
  return with_tiles<TileShape<64, 64, 32>, TileShape<128, 64, 32>, TileShape<256, 32, 32>>(s, [&]<class S>() {
    const std::int64_t blocks = tiles_of(s.q_length, S::kQueries) * s.heads * s.batch;
    if (blocks == 0) return cudaSuccess;
    return launch(stored_forward_kernel<S, T>, {static_cast<unsigned>(blocks), kTileThreads, shared_bytes<S>(), stream},
                  args, Dropping(s));
  });
}

template cudaError_t stored_forward<float>(const StoredForwardArgs<float>&, cudaStream_t);
template cudaError_t stored_forward<Bf16>(const StoredForwardArgs<Bf16>&, cudaStream_t);
template cudaError_t stored_forward<Fp16>(const StoredForwardArgs<Fp16>&, cudaStream_t);

}  // namespace gantry::kernels::cuda
