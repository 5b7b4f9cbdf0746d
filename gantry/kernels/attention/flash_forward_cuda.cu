#include "gantry/kernels/attention/attention_tiles_cuda.h"
#include "gantry/kernels/attention/flash_cuda.h"

namespace gantry::kernels::cuda {
namespace {

template <class S>
std::size_t shared_bytes() {
  return sizeof(float) * (S::kQueryTile + S::kKeyTile + S::kScoreTile) + S::kKeepBytes;
}

// A block makes the output of one tile of queries. Keys and values of a tile take turns in one place.
template <class S, class T>
__global__ void __launch_bounds__(kTileThreads, kBlocksTogether)
    flash_forward_kernel(FlashForwardArgs<T> args, Dropping dropping) {
  const FlashShape& s = args.shape;
  const TilePlace place = tile_place((s.q_length + S::kQueries - 1) / S::kQueries, s.heads, S::kQueries);
  const std::int64_t kv_head = place.head / (s.heads / s.kv_heads);
  float* q = dynamic_shared<float>();
  float *keys = q + S::kQueryTile, *p = keys + S::kKeyTile;
  auto* keep = reinterpret_cast<std::uint8_t*>(p + S::kScoreTile);
  load_rows<S, S::kQueries>(args.q, place.b, place.head, place.begin, s.q_length, s.head_dim, q);
  Softmax<S> softmax;
  float out[S::kRows][kResultColumns<S>] = {};
  const KeyRange range = tile_keys<S>(s, place.b, place.begin);
  for (std::int64_t key = range.first; key < range.last; key += S::kKeys) {
    __syncthreads();  // the values before have been read
    load_rows<S, S::kKeys>(args.k, place.b, kv_head, key, s.k_length, s.head_dim, keys);
    draw_keep<S>(dropping, s, place, key, keep);
    __syncthreads();
    float scores[S::kRows][S::kColumns];
    tile_scores<S>(s, place, key, q, keys, scores);
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      const float shrink = softmax.add(r, scores[r]);
#pragma unroll
      for (int i = 0; i < kResultColumns<S>; ++i) out[r][i] *= shrink;
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) {
        p[(thread_row() * S::kRows + r) * S::kScoreRow + thread_column() + c * kSide] =
            scores[r][c] * tile_factor<S>(dropping, keep, r, c);
      }
    }
    __syncthreads();  // the keys have been read
    load_rows<S, S::kKeys>(args.v, place.b, kv_head, key, s.k_length, s.head_dim, keys);
    __syncthreads();
    add_product<S, S::kKeys, S::kScoreRow, 1>(p, keys, out);
  }
  float factors[S::kRows];
#pragma unroll
  for (int r = 0; r < S::kRows; ++r) {
    factors[r] = softmax.inverse(r);
    const std::int64_t t = place.begin + thread_row() * S::kRows + r;
    if (t < s.q_length && thread_column() == 0) {
      args.lse[(place.b * s.heads + place.head) * s.q_length + t] = softmax.maximum[r] + logf(softmax.sum[r]);
    }
  }
  put_rows<S>(args.out, place, s.q_length, s.head_dim, out, factors);
}

}  // namespace

template <class T>
cudaError_t flash_forward(const FlashForwardArgs<T>& args, cudaStream_t stream) {
  const FlashShape& s = args.shape;
  if (args.lse == nullptr) return cudaErrorInvalidValue;
  return with_tiles<TileShape<64, 64, 64>, TileShape<128, 64, 32>, TileShape<256, 32, 32>>(s, [&]<class S>() {
    const std::int64_t blocks = tiles_of(s.q_length, S::kQueries) * s.heads * s.batch;
    if (blocks == 0) return cudaSuccess;
    return launch(flash_forward_kernel<S, T>, {static_cast<unsigned>(blocks), kTileThreads, shared_bytes<S>(), stream},
                  args, Dropping(s));
  });
}

template cudaError_t flash_forward<float>(const FlashForwardArgs<float>&, cudaStream_t);
template cudaError_t flash_forward<Bf16>(const FlashForwardArgs<Bf16>&, cudaStream_t);
template cudaError_t flash_forward<Fp16>(const FlashForwardArgs<Fp16>&, cudaStream_t);

}  // namespace gantry::kernels::cuda
