#pragma once
// Attention problems and their results in plain double-precision loops: grouped heads, documents, padding, masks,
// dropout.
#include "gantry/kernels/attention/flash_raw.h"
#include "gantry/kernels/cpu/philox_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels::testing {

struct Case {
  std::int64_t q_length, k_length, head_dim;
  bool causal;
  bool documents = false;                                                   // row_starts
  bool padding = false;                                                     // key_mask
  enum class Mask { kNone, kVisible, kAdded, kShared } mask = Mask::kNone;  // kShared: one [k_length] for everything
  double dropout = 0;
};

inline constexpr std::int64_t kBatch = 2, kHeads = 6, kKvHeads = 2;

// All tensors are [batch, length, heads, head_dim], contiguous.
struct Problem {
  Case shape;
  Doubles q, k, v, dout;
  std::vector<std::int32_t> row_starts;
  std::vector<std::uint8_t> key_mask;
  double (*as_stored)(double);  // rounds to the type of the tensors
  std::vector<float> added = {};
  std::vector<std::uint8_t> visible = {};
  std::vector<std::uint8_t> keep = {};  // of every (b, h, t, j), one byte each

  std::size_t score_at(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t j) const {
    return static_cast<std::size_t>(((b * kHeads + h) * shape.q_length + t) * shape.k_length + j);
  }
  ScoreMask score_mask() const {
    if (shape.mask == Case::Mask::kNone) return {};
    ScoreMask m{.head = shape.q_length * shape.k_length, .query = shape.k_length};  // the same for both sequences
    if (shape.mask == Case::Mask::kShared) m.head = m.query = 0;
    if (shape.mask == Case::Mask::kVisible) {
      m.visible = visible.data();
    } else {
      m.added = added.data();
    }
    return m;
  }
  DropoutRule rule() const { return {77, 5, dropout_threshold(shape.dropout)}; }
  double addend(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t j) const {
    const ScoreMask m = score_mask();
    return m.added == nullptr ? 0.0 : static_cast<double>(m.added[b * m.batch + h * m.head + t * m.query + j]);
  }
  double factor(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t j) const {
    const std::uint32_t threshold = rule().threshold;
    if (threshold == 0) return 1;
    return keep[score_at(b, h, t, j)] != 0 ? static_cast<double>(keep_scale(threshold)) : 0.0;
  }

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.head_dim)); }
  std::size_t q_at(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return static_cast<std::size_t>(((b * shape.q_length + t) * kHeads + h) * shape.head_dim);
  }
  std::size_t k_at(std::int64_t b, std::int64_t j, std::int64_t h) const {
    return static_cast<std::size_t>(((b * shape.k_length + j) * kKvHeads + h) * shape.head_dim);
  }
  bool sees(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t j) const {
    const ScoreMask m = score_mask();
    if (m.visible != nullptr && m.visible[h * m.head + t * m.query + j] == 0) return false;
    if (addend(b, h, t, j) <= -1e30) return false;
    if (shape.causal && j > shape.k_length - shape.q_length + t) return false;
    if (shape.documents && j < row_starts[static_cast<std::size_t>(b * shape.q_length + t)]) return false;
    return !shape.padding || key_mask[static_cast<std::size_t>(b * shape.k_length + j)] != 0;
  }
};

// The mask of every row, from bits that start where the row's block does.
inline void draw_keep(Problem& p) {
  const std::int64_t keys = p.shape.k_length, rows = kBatch * kHeads * p.shape.q_length;
  std::vector<std::uint8_t> bits(static_cast<std::size_t>(keys + 7) / 8);
  for (std::int64_t row = 0; row < rows; ++row) {
    scalar::dropout_keep_bits(p.rule(), static_cast<std::uint64_t>(row * ((keys + 7) / 8 * 8)), keys, bits.data());
    for (std::int64_t j = 0; j < keys; ++j) {
      p.keep.push_back(bits[static_cast<std::size_t>(j / 8)] >> (j % 8) & 1);
    }
  }
}

template <class T>
Problem make_problem(const Case& shape) {
  const std::int64_t q = kBatch * shape.q_length * kHeads * shape.head_dim;
  const std::int64_t k = kBatch * shape.k_length * kKvHeads * shape.head_dim;
  Problem p{shape,
            rounded<T>(normal(q, 1, 1.5)),
            rounded<T>(normal(k, 2)),
            rounded<T>(normal(k, 3)),
            rounded<T>(normal(q, 4)),
            {},
            {},
            [](double x) { return value_of(stored<T>(x)); }};
  base::CounterRandom random(5);
  for (std::int64_t b = 0; b < kBatch; ++b) {
    std::int32_t start = 0;
    for (std::int64_t t = 0; t < shape.q_length; ++t) {
      if (random.below(13) == 0) start = static_cast<std::int32_t>(t);
      p.row_starts.push_back(t == 5 ? static_cast<std::int32_t>(shape.k_length) : start);  // query 5 sees nothing
    }
    // Sequence 1 hides its first 20 keys: its early causal queries see nothing at all.
    for (std::int64_t j = 0; j < shape.k_length; ++j) p.key_mask.push_back(b == 0 ? j % 7 != 3 : j >= 20);
  }
  const std::int64_t scores = kHeads * shape.q_length * shape.k_length;
  const Doubles noise = normal(scores, 6);
  for (std::int64_t i = 0; i < scores; ++i) {
    const double x = noise[static_cast<std::size_t>(i)];
    p.added.push_back(i % 11 == 3 ? (i % 2 == 0 ? -INFINITY : -3e38f) : static_cast<float>(x));
    p.visible.push_back(x > -0.5);
  }
  for (std::int64_t j = 0; j < shape.k_length; ++j) {  // query 0 of head 1 sees nothing through either mask
    const auto at = static_cast<std::size_t>(shape.q_length * shape.k_length + j);
    p.added[at] = -INFINITY;
    p.visible[at] = 0;
  }
  draw_keep(p);
  return p;
}

struct Results {
  Doubles out, lse, dq, dk, dv, dscores;
};

// One query: its probabilities, output and, through them, its share of the gradients.
inline void attend(const Problem& p, std::int64_t b, std::int64_t t, std::int64_t h, Results& r) {
  const std::int64_t kv = h / (kHeads / kKvHeads), dim = p.shape.head_dim;
  const auto wide = static_cast<std::size_t>(dim);
  const std::size_t q = p.q_at(b, t, h);
  Doubles weight(static_cast<std::size_t>(p.shape.k_length));
  double sum = 0;
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    if (!p.sees(b, h, t, j)) continue;
    double score = 0;
    for (std::size_t d = 0; d < wide; ++d) score += p.q[q + d] * p.k[p.k_at(b, j, kv) + d];
    sum += weight[static_cast<std::size_t>(j)] = std::exp(score * p.scale() + p.addend(b, h, t, j));
  }
  r.lse[static_cast<std::size_t>((b * kHeads + h) * p.shape.q_length + t)] = std::log(sum);
  if (sum == 0) return;
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    weight[static_cast<std::size_t>(j)] /= sum;
    const double passed = weight[static_cast<std::size_t>(j)] * p.factor(b, h, t, j);
    for (std::size_t d = 0; d < wide; ++d) r.out[q + d] += passed * p.v[p.k_at(b, j, kv) + d];
  }
  double delta = 0;  // from the output as it is stored
  for (std::size_t d = 0; d < wide; ++d) {
    delta += p.as_stored(r.out[q + d]) * p.dout[q + d];
  }
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    const double w = weight[static_cast<std::size_t>(j)], factor = p.factor(b, h, t, j);
    const std::size_t k = p.k_at(b, j, kv);
    double dp = 0;
    for (std::size_t d = 0; d < wide; ++d) dp += p.dout[q + d] * p.v[k + d];
    const double change = w * (factor * dp - delta), ds = change * p.scale();
    r.dscores[p.score_at(b, h, t, j)] = change;
    for (std::size_t d = 0; d < wide; ++d) {
      r.dq[q + d] += ds * p.k[k + d];
      r.dk[k + d] += ds * p.q[q + d];
      r.dv[k + d] += w * factor * p.dout[q + d];
    }
  }
}

inline Results reference(const Problem& p) {
  const auto rows = static_cast<std::size_t>(kBatch * kHeads * p.shape.q_length);
  Results r{Doubles(p.q.size()), Doubles(rows),       Doubles(p.q.size()),
            Doubles(p.k.size()), Doubles(p.k.size()), Doubles(rows * static_cast<std::size_t>(p.shape.k_length))};
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t t = 0; t < p.shape.q_length; ++t) {
      for (std::int64_t h = 0; h < kHeads; ++h) attend(p, b, t, h, r);
    }
  }
  return r;
}

inline FlashShape flash_shape(const Problem& p) {
  return {.batch = kBatch,
          .q_length = p.shape.q_length,
          .k_length = p.shape.k_length,
          .heads = kHeads,
          .kv_heads = kKvHeads,
          .head_dim = p.shape.head_dim,
          .scale = static_cast<float>(p.scale()),
          .causal = p.shape.causal,
          .row_starts = p.shape.documents ? p.row_starts.data() : nullptr,
          .key_mask = p.shape.padding ? p.key_mask.data() : nullptr,
          .mask = p.score_mask(),
          .dropout = p.rule()};
}

template <class T>
struct Stored {
  explicit Stored(const Problem& p)
      : q(p.q),
        k(p.k),
        v(p.v),
        dout(p.dout),
        dim(p.shape.head_dim),
        q_token(kHeads * p.shape.head_dim),
        k_token(kKvHeads * p.shape.head_dim),
        q_batch(p.shape.q_length * q_token),
        k_batch(p.shape.k_length * k_token) {}
  HeadView<const T> q_view(const Guarded<T>& x) const { return {x.data(), q_batch, q_token, dim}; }
  HeadView<const T> k_view(const Guarded<T>& x) const { return {x.data(), k_batch, k_token, dim}; }
  HeadView<T> q_view(Guarded<T>& x) const { return {x.data(), q_batch, q_token, dim}; }
  HeadView<T> k_view(Guarded<T>& x) const { return {x.data(), k_batch, k_token, dim}; }

  const Guarded<T> q, k, v, dout;
  std::int64_t dim, q_token, k_token, q_batch, k_batch;
};

}  // namespace gantry::kernels::testing
