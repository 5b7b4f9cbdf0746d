#include "gantry/kernels/attention/flash_tiles.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr std::int64_t kQ = kFlashQueryTile;
constexpr std::int64_t kK = kFlashKeyTile;

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
  float* p;         // [kQ, kK]
  float* ds;        // [kQ, kK]
};

BackwardTiles lay_out(float* scratch, std::int64_t padded, std::int64_t q_length, std::int64_t dim) {
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
  tiles.p = tiles.delta + q_length;
  tiles.ds = tiles.p + kQ * kK;
  return tiles;
}

template <class T>
void load_query_head(const FlashBackwardArgs<T>& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  copy_rows(args.q, b, head, 0, s.q_length, dim, 1.0f, tiles.q);
  copy_rows(args.dout, b, head, 0, s.q_length, dim, 1.0f, tiles.dout);
  for (std::int64_t t = 0; t < s.q_length; ++t) {
    const T* out = args.out.data + b * args.out.batch + t * args.out.token + head * args.out.head;
    F32x16 sum = {};
    for (std::int64_t d = 0; d < dim; d += kLanes) sum += load(out + d) * load(tiles.dout + t * dim + d);
    tiles.delta[t] = reduce_add(sum);
  }
  std::memset(tiles.dq, 0, static_cast<std::size_t>(s.q_length * dim) * sizeof(float));
}

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
        row.blind ? F32x16{} : exp(load(row.p + v * kLanes) * row.scale + load(row.shift + v * kLanes));
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
    const float lse = args.lse[first_row + r];
    float shift[kK];
    if (has_mask(s)) mask_addends(s, b, head, begin + r, key, shift);
    for (int v = 0; v < 4; ++v) {
      store(shift + v * kLanes, has_mask(s) ? load(shift + v * kLanes) - lse : splat(-lse));
    }
    mask_row(s, b, begin + r, key, tiles.p + r * kK);
    score_row({tiles.p + r * kK, tiles.ds + r * kK, shift, drops ? keep.bytes[r] : nullptr, tiles.delta[begin + r],
               s.scale, kept, lse == -__builtin_inff()},
              args.dscores == nullptr ? nullptr : args.dscores + (first_row + r) * s.k_length + key, s.k_length - key);
  }
}

template <class T>
void query_head(const FlashBackwardArgs<T>& args, const BackwardTiles& tiles, std::int64_t b, std::int64_t head) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim;
  load_query_head(args, tiles, b, head);
  for (std::int64_t begin = 0; begin < s.q_length; begin += kQ) {
    const std::int64_t rows = s.q_length - begin < kQ ? s.q_length - begin : kQ;
    const VisibleRange range = tile_range(s, b, begin, rows);
    for (std::int64_t key = range.first; key < range.last; key += kK) {
      score_tile(args, tiles, b, head, begin, rows, key);
      panel_gemm({tiles.p, 1, kK}, tiles.dout + begin * dim, dim, tiles.dv + key * dim, dim, kK, dim, rows, true);
      panel_gemm({tiles.ds, 1, kK}, tiles.q + begin * dim, dim, tiles.dk + key * dim, dim, kK, dim, rows, true);
      panel_gemm({tiles.ds, kK, 1}, tiles.keys + key * dim, dim, tiles.dq + begin * dim, dim, rows, dim, kK, true);
    }
  }
  for (std::int64_t t = 0; t < s.q_length; ++t) {
    T* dq = args.dq.data + b * args.dq.batch + t * args.dq.token + head * args.dq.head;
    for (std::int64_t d = 0; d < dim; d += kLanes) store(dq + d, load(tiles.dq + t * dim + d));
  }
}

}  // namespace

template <class T>
void flash_backward(const FlashBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const FlashShape& s = args.shape;
  const std::int64_t dim = s.head_dim, padded = flash_padded_keys(s), group = s.heads / s.kv_heads;
  const BackwardTiles tiles = lay_out(args.scratch, padded, s.q_length, dim);
  const auto head_bytes = static_cast<std::size_t>(padded * dim) * sizeof(float);
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t b = item / s.kv_heads, kv_head = item % s.kv_heads;
    copy_transposed(args.k, b, kv_head, s.k_length, padded, dim, tiles.keys_t);
    copy_transposed(args.v, b, kv_head, s.k_length, padded, dim, tiles.values_t);
    std::memset(tiles.keys, 0, head_bytes);
    copy_rows(args.k, b, kv_head, 0, s.k_length, dim, 1.0f, tiles.keys);
    std::memset(tiles.dk, 0, head_bytes);
    std::memset(tiles.dv, 0, head_bytes);
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) query_head(args, tiles, b, head);
    for (std::int64_t j = 0; j < s.k_length; ++j) {
      T* dk = args.dk.data + b * args.dk.batch + j * args.dk.token + kv_head * args.dk.head;
      T* dv = args.dv.data + b * args.dv.batch + j * args.dv.token + kv_head * args.dv.head;
      for (std::int64_t d = 0; d < dim; d += kLanes) {
        store(dk + d, load(tiles.dk + j * dim + d));
        store(dv + d, load(tiles.dv + j * dim + d));
      }
    }
  }
}

template void flash_backward<float>(const FlashBackwardArgs<float>&, std::int64_t, std::int64_t);
template void flash_backward<Bf16>(const FlashBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
