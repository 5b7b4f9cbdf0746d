#include "gantry/kernels/attention/flash_backward_tiles.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kK = kFlashKeyTile;

struct ScoreRow {
  float* p;                  // q.k in, the probabilities that reached the output out
  float* ds;                 // dout.v in, the gradient of q.k out
  const float* shift;        // added to the scaled scores: the mask minus lse
  const std::uint8_t* keep;  // bits of what was not dropped, or null
  float delta, scale, kept;
  bool blind;
};

// p = exp(scale q.k + shift), ds = p (m dout.v - delta), both on 64 keys; then dropout on p and scale on ds. The
// gradient of the scores before scaling goes to `dscores` (null: nowhere), of which `count` keys exist.
GANTRY_INLINE void score_row(const ScoreRow& row, float* dscores, std::int64_t count) {
  for (int v = 0; v < 4; ++v) {
    const F32x16 probability =
        row.blind ? F32x16{} : score_exp(load(row.p + v * kLanes) * row.scale + load(row.shift + v * kLanes));
    F32x16 gradient = load(row.ds + v * kLanes);
    if (row.keep == nullptr) {
      store(row.p + v * kLanes, probability);
    } else {
      const F32x16 factors = keep_factors(keep_bits_at(row.keep + 2 * v), row.kept);
      store(row.p + v * kLanes, probability * factors);
      gradient *= factors;
    }
    const F32x16 change = probability * (gradient - row.delta);
    store(row.ds + v * kLanes, change * row.scale);
    if (dscores == nullptr) continue;
    for (int i = 0; i < kLanes && v * kLanes + i < count; ++i) dscores[v * kLanes + i] = change[i];
  }
}

template <class T>
void score_tile(const FlashBackwardArgs<T>& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head,
                std::int64_t begin, std::int64_t rows, std::int64_t key) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  panel_gemm({tiles.q + begin * dim, dim, 1}, tiles.keys_t + key * dim, kK, tiles.p, kK, rows, kK, dim, false);
  panel_gemm({tiles.dout + begin * dim, dim, 1}, tiles.values_t + key * dim, kK, tiles.ds, kK, rows, kK, dim, false);
  const std::int64_t first_row = (b * s.heads + head) * s.q_length + begin;
  const bool drops = s.dropout.threshold != 0;
  const float kept = keep_scale(s.dropout.threshold);
  KeepTile keep;
  if (drops) keep_tile(s, b, head, begin, rows, key, &keep);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float lse = tiles.lse[begin + r];
    float shift[kK];
    if (has_mask(s)) mask_addends(s, b, head, begin + r, key, shift);
    for (int v = 0; v < 4; ++v) {
      store(shift + v * kLanes, has_mask(s) ? load(shift + v * kLanes) - lse : splat(-lse));
    }
    mask_row(s, b, begin + r, key, tiles.p + r * kK);
    score_row({tiles.p + r * kK, tiles.ds + r * kK, shift, drops ? keep.bytes[r] : nullptr, tiles.delta[begin + r],
               s.scale, kept, lse == kBlindLogSum},
              args.dscores == nullptr ? nullptr : args.dscores + (first_row + r) * s.k_length + key, s.k_length - key);
  }
}

}  // namespace

template <class T>
void flash_backward(const FlashBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  backward_heads(args, begin, end,
                 [&args](const BackwardTiles& tiles, std::int64_t b, std::int64_t head, std::int64_t first,
                         std::int64_t rows, std::int64_t key) { score_tile(args, tiles, b, head, first, rows, key); });
}

template void flash_backward<float>(const FlashBackwardArgs<float>&, std::int64_t, std::int64_t);
template void flash_backward<Bf16>(const FlashBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
