#include "gantry/kernels/attention/flash_bf16_tiles.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kScoreStride = kForwardKeys + kScorePad, kChanceStride = kForwardKeys + 2 * kScorePad;
using ForwardKeep = BlockKeep<kForwardQueries, kForwardKeys>;

struct Bf16ForwardTiles {
  Bf16 *keys_t, *values, *rows, *q, *p;
  float *scores, *out, *maximum, *sum;
};

Bf16ForwardTiles lay_out_bf16(float* scratch, const FlashShape& s) {
  const FlashBf16Forward at = flash_bf16_forward_layout(s);
  float* base = aligned_scratch(scratch);
  return {as_bf16(base + at.keys_t),
          as_bf16(base + at.values),
          as_bf16(base + at.rows),
          as_bf16(base + at.q),
          as_bf16(base + at.p),
          base + at.scores,
          base + at.out,
          base + at.maximum,
          base + at.sum};
}

// One row of scores to probabilities under the running maximum. Dropped ones count in the sum but not in the output.
template <bool kDrops>
GANTRY_INLINE float chances(const float* scores, Bf16* p, std::int64_t width, float factor, float maximum,
                            const ForwardKeep& keep, std::int64_t r) {
  F32x16 even = {}, odd = {};
  for (std::int64_t v = 0; v < width; v += 2 * kLanes) {
    F32x16 low = exp2_score(load(scores + v) * factor - maximum);
    F32x16 high = exp2_score(load(scores + v + kLanes) * factor - maximum);
    even += low;
    odd += high;
    if constexpr (kDrops) {
      const std::uint32_t bits = keep.at(r, v);
      low = keep_lanes(low, bits & 0xffffu);
      high = keep_lanes(high, bits >> kLanes);
    }
    const __m512i both = narrow(low, high);
    std::memcpy(p + v, &both, sizeof(both));
  }
  return reduce_add(even + odd);
}

GANTRY_INLINE float row_peak(const float* scores, std::int64_t width) {
  F32x16 even = load(scores), odd = load(scores + kLanes);
  for (std::int64_t v = 2 * kLanes; v < width; v += 2 * kLanes) {
    even = max(even, load(scores + v));
    odd = max(odd, load(scores + v + kLanes));
  }
  return largest(max(even, odd));
}

// Scores of a block to probabilities; rescales what was summed so far where a maximum rises. Comparisons skip NaN; the
// sum, which every output is divided by, does not.
template <bool kDrops>
void soften_block(const FlashShape& s, const Bf16ForwardTiles& tiles, std::int64_t rows, std::int64_t width,
                  const ForwardKeep& keep) {
  const float factor = score_factor(s);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* scores = tiles.scores + r * kScoreStride;
    const float peak = row_peak(scores, width) * factor, old = tiles.maximum[r];
    const float maximum = peak > old ? peak : old;
    const float finite = maximum == kHidden ? 0.0f : maximum;  // nothing seen yet: probabilities of zero
    if (maximum != old && old != kHidden) {
      const float shrink = __builtin_exp2f(old - maximum);
      tiles.sum[r] *= shrink;
      float* out = tiles.out + r * s.head_dim;
      for (std::int64_t d = 0; d < s.head_dim; d += kLanes) store(out + d, load(out + d) * shrink);
    }
    tiles.maximum[r] = maximum;
    tiles.sum[r] += chances<kDrops>(scores, tiles.p + r * kChanceStride, width, factor, finite, keep, r);
  }
}

void pack_keys_bf16(const FlashForwardArgs<Bf16>& args, const Bf16ForwardTiles& tiles, std::int64_t b,
                    std::int64_t kv_head) {
  const std::int64_t length = args.shape.k_length, dim = args.shape.head_dim, wide = round_up(dim, kTileDepth);
  for (std::int64_t t = 0; t < length; t += kTileDepth) {
    pack_rows(args.k, b, kv_head, t, length, dim, tiles.rows);
    pack_transposed(tiles.rows, dim, tiles.keys_t + t * wide);
    pack_rows(args.v, b, kv_head, t, length, dim, tiles.rows);
    pack_pairs(tiles.rows, dim, tiles.values + t * dim);
  }
}

void write_rows(const FlashForwardArgs<Bf16>& args, const Bf16ForwardTiles& tiles, std::int64_t b, std::int64_t head,
                std::int64_t begin, std::int64_t rows) {
  const FlashShape& s = args.shape;
  const float kept = keep_scale(s.dropout.threshold);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float sum = tiles.sum[r];
    Bf16* out = row_of(args.out, b, head, begin + r);
    const float inverse = sum > 0 ? kept / sum : (sum == 0 ? 0.0f : sum);
    for (std::int64_t d = 0; d < s.head_dim; d += kLanes) {
      store(out + d, sum == 0 ? F32x16{} : load(tiles.out + r * s.head_dim + d) * inverse);
    }
    args.lse[(b * s.heads + head) * s.q_length + begin + r] =
        sum == 0 ? kHidden : tiles.maximum[r] * kLn2 + __builtin_logf(sum);
  }
}

void query_tile_bf16(const FlashForwardArgs<Bf16>& args, const Bf16ForwardTiles& tiles, std::int64_t b,
                     std::int64_t head, std::int64_t begin, std::int64_t rows) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim, wide = round_up(dim, kTileDepth);
  const std::int64_t row_tiles = round_up(rows, kTileRows) / kTileRows;
  for (std::int64_t r = 0; r < rows; r += kTileDepth) {
    pack_rows(args.q, b, head, begin + r, s.q_length, dim, tiles.q + r * wide);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    tiles.maximum[r] = kHidden;
    tiles.sum[r] = 0;
  }
  const TilesA q{tiles.q, wide, kTileRows * wide, kTileDepth};
  const TilesA p{tiles.p, kChanceStride, kTileRows * kChanceStride, kTileDepth};
  const TilesC scores{tiles.scores, kScoreStride, kTileRows * kScoreStride, kTileRows};
  const TilesC out{tiles.out, dim, kTileRows * dim, kTileRows};
  const TileSight sight = tile_sight(s, b, begin, rows);
  const std::int64_t first = sight.any.first / kTileDepth * kTileDepth;
  const bool drops = s.dropout.threshold != 0;
  ForwardKeep keep;
  for (std::int64_t key = first; key < sight.any.last; key += kForwardKeys) {
    const std::int64_t left = round_up(sight.any.last - key, kTileDepth),
                       width = left < kForwardKeys ? left : kForwardKeys;
    bf16_product(q, {tiles.keys_t + key * wide, kTileElements, kTileRows * wide}, scores,
                 {row_tiles, width / kTileRows, wide / kTileDepth}, false);
    if (!sees_all(s, sight, key, width)) {
      hide_block(s, b, head, begin, rows, key, width, tiles.scores, kScoreStride);
    }
    if (drops) {
      keep.draw(s, b, head, begin, rows, key, width);
      soften_block<true>(s, tiles, rows, width, keep);
    } else {
      soften_block<false>(s, tiles, rows, width, keep);
    }
    bf16_product(p, {tiles.values + key * dim, kTileDepth * dim, kTileElements}, out,
                 {row_tiles, dim / kTileRows, width / kTileDepth}, key != first);
  }
  write_rows(args, tiles, b, head, begin, rows);
}

}  // namespace

void flash_forward_bf16(const FlashForwardArgs<Bf16>& args, std::int64_t begin, std::int64_t end) {
  const FlashShape& s = args.shape;
  const Bf16ForwardTiles tiles = lay_out_bf16(args.scratch, s);
  const TileScope scope;
  PackedKeys packed;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.heads, head = item % s.heads, kv_head = head / (s.heads / s.kv_heads);
    if (packed.batch != b || packed.kv_head != kv_head) {
      pack_keys_bf16(args, tiles, b, kv_head);
      packed = {b, kv_head};
    }
    for (std::int64_t t = 0; t < s.q_length; t += kForwardQueries) {
      query_tile_bf16(args, tiles, b, head, t, s.q_length - t < kForwardQueries ? s.q_length - t : kForwardQueries);
    }
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
