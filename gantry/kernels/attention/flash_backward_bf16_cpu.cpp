#include "gantry/kernels/attention/flash_bf16_tiles.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kScoreStride = kBackwardKeys + kScorePad, kGradientStride = kBackwardKeys + 2 * kScorePad;
using BackwardKeep = BlockKeep<kStripQueries, kBackwardKeys>;

struct Bf16BackwardTiles {
  Bf16 *keys_t, *values_t, *keys, *rows, *pairs, *q, *dout, *q_t, *dout_t;
  float *dk, *dv, *dq, *delta, *lse, *scores, *dp;
  Bf16 *p_tiles, *ds_tiles, *ds;
};

Bf16BackwardTiles lay_out_bf16(float* scratch, const FlashShape& s) {
  const FlashBf16Backward at = flash_bf16_backward_layout(s);
  float* base = aligned_scratch(scratch);
  const auto halves = [base](std::int64_t offset) { return as_bf16(base + offset); };
  return {.keys_t = halves(at.keys_t),
          .values_t = halves(at.values_t),
          .keys = halves(at.keys),
          .rows = halves(at.rows),
          .pairs = halves(at.pairs),
          .q = halves(at.q),
          .dout = halves(at.dout),
          .q_t = halves(at.q_t),
          .dout_t = halves(at.dout_t),
          .dk = base + at.dk,
          .dv = base + at.dv,
          .dq = base + at.dq,
          .delta = base + at.delta,
          .lse = base + at.lse,
          .scores = base + at.scores,
          .dp = base + at.dp,
          .p_tiles = halves(at.p_tiles),
          .ds_tiles = halves(at.ds_tiles),
          .ds = halves(at.ds)};
}

// Query rows [begin, begin + rows) of one head and keys [key, key + width).
struct Block {
  std::int64_t b, head, begin, rows, key, width;
};

// Two rows of 32 values as rows 2i and 2i + 1 of two tiles of B. Interleaving within quarters of a register leaves the
// columns of both tiles in an order of their own; tile_column() undoes it.
GANTRY_INLINE void interleave_rows(__m512i even, __m512i odd, Bf16* to) {
  const __m512i low = _mm512_maskz_unpacklo_epi16(0xffffffffu, even, odd);
  const __m512i high = _mm512_maskz_unpackhi_epi16(0xffffffffu, even, odd);
  std::memcpy(to, &low, sizeof(low));
  std::memcpy(to + kTileElements, &high, sizeof(high));
}

// Where key j of 32 lies in the two tiles of C, each `tile` floats.
inline std::int64_t tile_column(std::int64_t j, std::int64_t tile) { return j % 8 / 4 * tile + j / 8 * 4 + j % 4; }

struct ScoreConstants {
  float factor, lse, delta, kept;
};

struct Scored {
  F32x16 p, ds;
};

// p = 2^(factor q.k - lse) and ds = p (m dout.v - delta) of sixteen keys, of which dropout keeps `lanes`.
template <bool kDrops>
GANTRY_INLINE Scored score_vector(const float* scores, const float* dp, const ScoreConstants& c, std::uint32_t lanes) {
  const F32x16 p = exp2_score(load(scores) * c.factor - c.lse);
  if constexpr (!kDrops) return {p, p * (load(dp) - c.delta)};
  const auto kept = static_cast<__mmask16>(lanes);
  const __m512 change =
      _mm512_mask3_fmadd_ps(reinterpret_cast<__m512>(load(dp)), reinterpret_cast<__m512>(splat(c.kept)),
                            reinterpret_cast<__m512>(splat(-c.delta)), kept);
  return {keep_lanes(p, lanes), p * reinterpret_cast<F32x16>(change)};
}

// One strip of queries: to tiles of B of p and ds and to rows of ds, before scaling by `scale`, which is left to
// whoever writes dq and dk, as the factor of kept probabilities is to whoever writes dv.
template <bool kDrops, bool kMaskGradient>
void score_strip(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, const Block& at,
                 std::int64_t strip, const BackwardKeep& keep) {
  struct Row {
    __m512i p, ds;
  };
  const FlashShape& s = args.shape;
  const float factor = score_factor(s), kept = keep_scale(s.dropout.threshold);
  const auto score_row = [&](std::int64_t r, std::int64_t v) -> Row {
    const std::int64_t query = at.begin + strip + r;
    const ScoreConstants c{factor, tiles.lse[query], tiles.delta[query], kept};
    const float* scores = tiles.scores + r * kScoreStride + v;
    const float* dp = tiles.dp + r * kScoreStride + v;
    std::uint32_t bits = 0;
    if constexpr (kDrops) bits = c.lse == c.lse ? keep.at(r, v) : 0xffffffffu;  // NaN is not dropped
    const Scored low = score_vector<kDrops>(scores, dp, c, bits & 0xffffu);
    const Scored high = score_vector<kDrops>(scores + kLanes, dp + kLanes, c, bits >> kLanes);
    if constexpr (kMaskGradient) {
      if (query < s.q_length) {
        const std::int64_t row = (at.b * s.heads + at.head) * s.q_length + query, key = at.key + v;
        float* to = args.dscores + row * s.k_length + key;
        _mm512_mask_storeu_ps(to, lanes_between(0, s.k_length - key), reinterpret_cast<__m512>(low.ds));
        _mm512_mask_storeu_ps(to + kLanes, lanes_between(0, s.k_length - key - kLanes),
                              reinterpret_cast<__m512>(high.ds));
      }
    }
    const Row row{narrow(low.p, high.p), narrow(low.ds, high.ds)};
    std::memcpy(tiles.ds + (strip + r) * kGradientStride + v, &row.ds, sizeof(row.ds));
    return row;
  };
  for (std::int64_t r = 0; r < kStripQueries; r += 2) {
    for (std::int64_t v = 0; v < at.width; v += 2 * kLanes) {
      const Row even = score_row(r, v), odd = score_row(r + 1, v);
      const std::int64_t to = strip * kBackwardKeys + v / kTileRows * kTileElements + r * kTileRows;
      interleave_rows(even.p, odd.p, tiles.p_tiles + to);
      interleave_rows(even.ds, odd.ds, tiles.ds_tiles + to);
    }
  }
}

void fill_strip(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, const Block& at,
                std::int64_t strip, bool plain) {
  const FlashShape& s = args.shape;
  const std::int64_t wide = round_up(s.head_dim, kTileDepth), query = at.begin + strip;
  const std::int64_t rows = at.rows - strip < kStripQueries ? at.rows - strip : kStripQueries;
  const TileCounts count{kStripQueries / kTileRows, at.width / kTileRows, wide / kTileDepth};
  const auto product = [&](const Bf16* left, const Bf16* right, float* to) {
    bf16_product({left + query * wide, wide, kTileRows * wide, kTileDepth},
                 {right + at.key * wide, kTileElements, kTileRows * wide},
                 {to, kScoreStride, kTileRows * kScoreStride, kTileRows}, count, false);
  };
  product(tiles.q, tiles.keys_t, tiles.scores);
  product(tiles.dout, tiles.values_t, tiles.dp);
  if (!plain) hide_block(s, at.b, at.head, query, rows, at.key, at.width, tiles.scores, kScoreStride);
  BackwardKeep keep;
  const bool drops = s.dropout.threshold != 0, mask_gradient = args.dscores != nullptr;
  if (drops) keep.draw(s, at.b, at.head, query, rows, at.key, at.width);
  if (drops && mask_gradient) {
    score_strip<true, true>(args, tiles, at, strip, keep);
  } else if (drops) {
    score_strip<true, false>(args, tiles, at, strip, keep);
  } else if (mask_gradient) {
    score_strip<false, true>(args, tiles, at, strip, keep);
  } else {
    score_strip<false, false>(args, tiles, at, strip, keep);
  }
}

void backward_block(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, const Block& at, bool plain) {
  const std::int64_t dim = args.shape.head_dim, queries = round_up(at.rows, kStripQueries);
  for (std::int64_t strip = 0; strip < queries; strip += kStripQueries) fill_strip(args, tiles, at, strip, plain);
  const TileCounts transposed{dim / kTileRows, at.width / kTileRows, queries / kTileDepth};
  const auto add_transposed = [&](const Bf16* left, const Bf16* right, float* to) {
    bf16_product({left + at.begin * dim, kTileDepth, kTileElements, kTileDepth * dim},
                 {right, kTileDepth * kBackwardKeys, kTileElements},
                 {to + at.key * dim, kTileRows, kTileSums, kTileRows * dim}, transposed, true);
  };
  add_transposed(tiles.dout_t, tiles.p_tiles, tiles.dv);
  add_transposed(tiles.q_t, tiles.ds_tiles, tiles.dk);
  bf16_product({tiles.ds, kGradientStride, kTileRows * kGradientStride, kTileDepth},
               {tiles.keys + at.key * dim, kTileDepth * dim, kTileElements},
               {tiles.dq + at.begin * dim, kTileRows, kTileRows * dim, kTileSums},
               {queries / kTileRows, dim / kTileRows, at.width / kTileDepth}, true);
}

void pack_keys_bf16(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, std::int64_t b,
                    std::int64_t kv_head) {
  const std::int64_t length = args.shape.k_length, dim = args.shape.head_dim, wide = round_up(dim, kTileDepth);
  for (std::int64_t t = 0; t < length; t += kTileDepth) {
    pack_rows(args.k, b, kv_head, t, length, dim, tiles.rows);
    pack_transposed(tiles.rows, dim, tiles.keys_t + t * wide);
    pack_pairs(tiles.rows, dim, tiles.keys + t * dim);
    pack_rows(args.v, b, kv_head, t, length, dim, tiles.rows);
    pack_transposed(tiles.rows, dim, tiles.values_t + t * wide);
  }
}

void load_query_head_bf16(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, std::int64_t b,
                          std::int64_t head) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim, wide = round_up(dim, kTileDepth), padded = round_up(s.q_length, kStripQueries);
  for (std::int64_t t = 0; t < padded; t += kTileDepth) {
    pack_rows(args.q, b, head, t, s.q_length, dim, tiles.q + t * wide);
    pack_pairs(tiles.q + t * wide, dim, tiles.pairs);
    pack_columns(tiles.pairs, dim, tiles.q_t + t * dim);
    pack_rows(args.dout, b, head, t, s.q_length, dim, tiles.dout + t * wide);
    pack_pairs(tiles.dout + t * wide, dim, tiles.pairs);
    pack_columns(tiles.pairs, dim, tiles.dout_t + t * dim);
  }
  for (std::int64_t t = 0; t < padded; ++t) {
    tiles.delta[t] = 0;
    tiles.lse[t] = __builtin_inff();  // of what sees nothing: probabilities of zero
    if (t >= s.q_length) continue;
    if (t + kTileDepth < s.q_length) prefetch_row(args.out, b, head, t + kTileDepth, dim);
    const Bf16* out = row_of(args.out, b, head, t);
    const Bf16* dout = tiles.dout + t * wide;
    F32x16 sum = {};
    for (std::int64_t d = 0; d < dim; d += kLanes) sum += load(out + d) * load(dout + d);
    tiles.delta[t] = reduce_add(sum);
    const float lse = args.lse[(b * s.heads + head) * s.q_length + t];
    if (lse != kHidden) tiles.lse[t] = lse * kLog2e;
  }
  std::memset(tiles.dq, 0, static_cast<std::size_t>(padded * dim) * sizeof(float));
}

void backward_query_head_bf16(const FlashBackwardArgs<Bf16>& args, const Bf16BackwardTiles& tiles, std::int64_t b,
                              std::int64_t head) {
  const FlashShape& s = args.shape;
  load_query_head_bf16(args, tiles, b, head);
  for (std::int64_t key = 0; key < s.k_length; key += kBackwardKeys) {
    const std::int64_t left = round_up(s.k_length - key, kTileDepth),
                       width = left < kBackwardKeys ? left : kBackwardKeys;
    for (std::int64_t begin = 0; begin < s.q_length; begin += kBackwardQueries) {
      const std::int64_t rows = s.q_length - begin < kBackwardQueries ? s.q_length - begin : kBackwardQueries;
      const TileSight sight = tile_sight(s, b, begin, rows);
      if (sight.any.last <= key || sight.any.first >= key + width) continue;
      backward_block(args, tiles, {b, head, begin, rows, key, width}, sees_all(s, sight, key, width));
    }
  }
  for (std::int64_t t = 0; t < s.q_length; ++t) {
    if (t + kTileDepth < s.q_length) prefetch_row(args.dq, b, head, t + kTileDepth, s.head_dim);
    Bf16* dq = row_of(args.dq, b, head, t);
    const float* from = tiles.dq + t / kTileRows * kTileRows * s.head_dim + t % kTileRows * kTileRows;
    for (std::int64_t d = 0; d < s.head_dim; d += kLanes) store(dq + d, load(from + d * kTileRows) * s.scale);
  }
}

// Gradients of keys or values from their transposed tiles.
void write_transposed(const float* tiles, const HeadView<Bf16>& view, std::int64_t b, std::int64_t head,
                      std::int64_t length, std::int64_t dim, float factor) {
  const __m512i rows = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
  for (std::int64_t j = 0; j < length; ++j) {
    if (j + kTileDepth < length) prefetch_row(view, b, head, j + kTileDepth, dim);
    const float* from = tiles + j / 32 * 32 * dim + tile_column(j % 32, kTileRows * dim);
    Bf16* to = row_of(view, b, head, j);
    for (std::int64_t d = 0; d < dim; d += kLanes) {
      const __m512 column = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, rows, from + d * kTileRows, 4);
      store(to + d, reinterpret_cast<F32x16>(column) * factor);
    }
  }
}

}  // namespace

void flash_backward_bf16(const FlashBackwardArgs<Bf16>& args, std::int64_t begin, std::int64_t end) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim, group = s.heads / s.kv_heads;
  const Bf16BackwardTiles tiles = lay_out_bf16(args.scratch, s);
  const auto key_bytes = static_cast<std::size_t>(round_up(s.k_length, kTileDepth) * dim) * sizeof(float);
  const TileScope scope;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.kv_heads, kv_head = item % s.kv_heads;
    pack_keys_bf16(args, tiles, b, kv_head);
    std::memset(tiles.dk, 0, key_bytes);
    std::memset(tiles.dv, 0, key_bytes);
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      backward_query_head_bf16(args, tiles, b, head);
    }
    write_transposed(tiles.dk, args.dk, b, kv_head, s.k_length, dim, s.scale);
    write_transposed(tiles.dv, args.dv, b, kv_head, s.k_length, dim, keep_scale(s.dropout.threshold));
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
