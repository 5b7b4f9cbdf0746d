#include <type_traits>

#include "gantry/kernels/attention/flash_tiles.h"
#include "gantry/kernels/cpu/last_bits.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kQ = kFlashQueryTile;
constexpr std::int64_t kK = kFlashKeyTile;

struct ForwardTiles {
  float* keys;     // transposed tiles
  float* values;   // [padded, head_dim]
  float* scores;   // [kQ, kK]
  float* q;        // [kQ, head_dim]
  float* out;      // [kQ, head_dim]
  float* maximum;  // [kQ]
  float* sum;      // [kQ]
};

ForwardTiles lay_out(float* scratch, std::int64_t padded, std::int64_t dim) {
  ForwardTiles tiles;
  tiles.keys = scratch;
  tiles.values = tiles.keys + padded * dim;
  tiles.scores = tiles.values + padded * dim;
  tiles.q = tiles.scores + kQ * kK;
  tiles.out = tiles.q + kQ * dim;
  tiles.maximum = tiles.out + kQ * dim;
  tiles.sum = tiles.maximum + kQ;
  return tiles;
}

// Scores of one tile to probabilities under the running maximum; rescales what was summed so far when it rises. Dropped
// probabilities (`keep`, if not null) count in the sum but not in the output.
void soften(const ForwardTiles& tiles, std::int64_t rows, std::int64_t dim, const KeepTile* keep, float kept) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = tiles.scores + r * kK;
    F32x16 s[4];
    for (int v = 0; v < 4; ++v) s[v] = load(row + v * kLanes);
    const float peak = reduce_max(max(max(s[0], s[1]), max(s[2], s[3])));
    const float old = tiles.maximum[r];
    const float maximum = peak > old ? peak : old;
    if (maximum == -__builtin_inff()) {
      if (any_nan(s)) {  // comparisons skip NaN, so a row of them looks unseen: spread it instead
        tiles.maximum[r] = tiles.sum[r] = __builtin_nanf("");
      }
      for (int v = 0; v < 4; ++v) store(row + v * kLanes, F32x16{});
      continue;
    }
    F32x16 total = {};
    for (int v = 0; v < 4; ++v) {
      const F32x16 p = score_exp(s[v] - maximum);
      total += p;
      store(row + v * kLanes, keep == nullptr ? p : p * keep_factors(keep_bits_at(keep->bytes[r] + 2 * v), kept));
    }
    if (maximum != old) {
      const float shrink = old == -__builtin_inff() ? 0.0f : __builtin_expf(old - maximum);
      tiles.sum[r] *= shrink;
      float* out = tiles.out + r * dim;
      for (std::int64_t d = 0; d < dim; d += kLanes) store(out + d, load(out + d) * shrink);
      tiles.maximum[r] = maximum;
    }
    tiles.sum[r] += reduce_add(total);
  }
}

template <class T>
void query_tile(const FlashForwardArgs<T>& args, const ForwardTiles& tiles, std::int64_t b, std::int64_t head,
                std::int64_t begin, std::int64_t rows) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  copy_rows(args.q, b, head, begin, rows, dim, s.scale, tiles.q);
  for (std::int64_t r = 0; r < rows; ++r) {
    tiles.maximum[r] = -__builtin_inff();
    tiles.sum[r] = 0;
  }
  std::memset(tiles.out, 0, static_cast<std::size_t>(rows * dim) * sizeof(float));
  const VisibleRange range = tile_range(s, b, begin, rows);
  const bool drops = s.dropout.threshold != 0;
  const float kept = keep_scale(s.dropout.threshold);
  KeepTile keep;
  for (std::int64_t key = range.first; key < range.last; key += kK) {
    panel_gemm({tiles.q, dim, 1}, tiles.keys + key * dim, kK, tiles.scores, kK, rows, kK, dim, false);
    hide_keys(s, tiles.scores, b, head, begin, rows, key);
    if (drops) keep_tile(s, b, head, begin, rows, key, &keep);
    soften(tiles, rows, dim, drops ? &keep : nullptr, kept);
    panel_gemm({tiles.scores, kK, 1}, tiles.values + key * dim, dim, tiles.out, dim, rows, dim, kK, true);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const float sum = tiles.sum[r];
    T* out = args.out.data + b * args.out.batch + (begin + r) * args.out.token + head * args.out.head;
    const float inverse = sum > 0 ? 1.0f / sum : (sum == 0 ? 0.0f : sum);
    for (std::int64_t d = 0; d < dim; d += kLanes) store(out + d, load(tiles.out + r * dim + d) * inverse);
    const float lse = tiles.maximum[r] + __builtin_logf(sum);
    if constexpr (std::is_same_v<T, float>) {
      if (args.lse == nullptr) {
        write_last_bits(out, lse, kBlindLogSum);
        continue;
      }
    }
    args.lse[(b * s.heads + head) * s.q_length + begin + r] = lse;
  }
}

}  // namespace

template <class T>
void flash_forward(const FlashForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const FlashShape& s = args.shape;
  const ForwardTiles tiles = lay_out(args.scratch, flash_padded_keys(s), s.head_dim);
  PackedKeys packed;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.heads, head = item % s.heads;
    pack_keys(s, args.k, args.v, b, head, tiles.keys, tiles.values, &packed);
    for (std::int64_t t = 0; t < s.q_length; t += kQ) {
      query_tile(args, tiles, b, head, t, s.q_length - t < kQ ? s.q_length - t : kQ);
    }
  }
}

template void flash_forward<float>(const FlashForwardArgs<float>&, std::int64_t, std::int64_t);
template void flash_forward<Bf16>(const FlashForwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
