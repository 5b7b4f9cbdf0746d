#include "gantry/kernels/attention/flash_backward_tiles.h"
#include "gantry/kernels/attention/stored_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kK = kFlashKeyTile;

struct ScoreRow {
  float* p;   // the probabilities that reached the output out
  float* ds;  // dout.v in, the gradient of q.k out
  float delta, scale, kept;
};

// As in the form that recomputes, with probabilities and mask from `stored`, of which `count` exist.
template <class T>
GANTRY_INLINE void score_row(const ScoreRow& row, const T* stored, float* dscores, std::int64_t count) {
  for (int v = 0; v < 4; ++v) {
    const std::int64_t left = count - v * kLanes;
    if (left <= 0) {
      store(row.p + v * kLanes, F32x16{});
      store(row.ds + v * kLanes, F32x16{});
      continue;
    }
    const U32x16 bits = reinterpret_cast<U32x16>(get(stored + v * kLanes, left < kLanes ? left : kLanes));
    const F32x16 probability = reinterpret_cast<F32x16>(bits & 0x7fffffffu);
    const F32x16 factors = reinterpret_cast<I32x16>(bits) < 0 ? F32x16{} : splat(row.kept);
    const F32x16 change = probability * (load(row.ds + v * kLanes) * factors - row.delta);
    store(row.p + v * kLanes, probability * factors);
    store(row.ds + v * kLanes, change * row.scale);
    if (dscores == nullptr) continue;
    for (int i = 0; i < kLanes && i < left; ++i) dscores[v * kLanes + i] = change[i];
  }
}

template <class T>
void score_tile(const StoredBackwardArgs<T>& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head,
                std::int64_t begin, std::int64_t rows, std::int64_t key) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  panel_gemm({tiles.dout + begin * dim, dim, 1}, tiles.values_t + key * dim, kK, tiles.ds, kK, rows, kK, dim, false);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = ((b * s.heads + head) * s.q_length + begin + r) * s.k_length + key;
    score_row({tiles.p + r * kK, tiles.ds + r * kK, tiles.delta[begin + r], s.scale, keep_scale(s.dropout.threshold)},
              args.p + at, args.dscores == nullptr ? nullptr : args.dscores + at, s.k_length - key);
  }
}

}  // namespace

template <class T>
void stored_backward(const StoredBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  backward_heads(args, begin, end,
                 [&args](const BackwardTiles& tiles, std::int64_t b, std::int64_t head, std::int64_t first,
                         std::int64_t rows, std::int64_t key) { score_tile(args, tiles, b, head, first, rows, key); });
}

template void stored_backward<float>(const StoredBackwardArgs<float>&, std::int64_t, std::int64_t);
template void stored_backward<Bf16>(const StoredBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
