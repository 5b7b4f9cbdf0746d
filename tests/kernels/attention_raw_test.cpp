// Tiled and decoding attention against plain double-precision loops, for every instruction set.
#include "gantry/kernels/attention/decode_raw.h"
#include "gantry/kernels/attention/flash_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Case {
  std::int64_t q_length, k_length, head_dim;
  bool causal;
  bool documents = false;  // row_starts
  bool padding = false;    // key_mask
};

constexpr std::int64_t kBatch = 2, kHeads = 6, kKvHeads = 2;

// All tensors are [batch, length, heads, head_dim], contiguous.
struct Problem {
  Case shape;
  Doubles q, k, v, dout;
  std::vector<std::int32_t> row_starts;
  std::vector<std::uint8_t> key_mask;
  bool bf16;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(shape.head_dim)); }
  std::size_t q_at(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return static_cast<std::size_t>(((b * shape.q_length + t) * kHeads + h) * shape.head_dim);
  }
  std::size_t k_at(std::int64_t b, std::int64_t j, std::int64_t h) const {
    return static_cast<std::size_t>(((b * shape.k_length + j) * kKvHeads + h) * shape.head_dim);
  }
  bool sees(std::int64_t b, std::int64_t t, std::int64_t j) const {
    if (shape.causal && j > shape.k_length - shape.q_length + t) return false;
    if (shape.documents && j < row_starts[static_cast<std::size_t>(b * shape.q_length + t)]) return false;
    return !shape.padding || key_mask[static_cast<std::size_t>(b * shape.k_length + j)] != 0;
  }
};

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
            std::is_same_v<T, Bf16>};
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
  return p;
}

struct Results {
  Doubles out, lse, dq, dk, dv;
};

// One query: its probabilities, output and, through them, its share of the gradients.
void attend(const Problem& p, std::int64_t b, std::int64_t t, std::int64_t h, Results& r) {
  const std::int64_t kv = h / (kHeads / kKvHeads), dim = p.shape.head_dim;
  const std::size_t q = p.q_at(b, t, h);
  Doubles weight(static_cast<std::size_t>(p.shape.k_length));
  double sum = 0;
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    if (!p.sees(b, t, j)) continue;
    double score = 0;
    for (std::int64_t d = 0; d < dim; ++d)
      score += p.q[q + static_cast<std::size_t>(d)] * p.k[p.k_at(b, j, kv) + static_cast<std::size_t>(d)];
    sum += weight[static_cast<std::size_t>(j)] = std::exp(score * p.scale());
  }
  r.lse[static_cast<std::size_t>((b * kHeads + h) * p.shape.q_length + t)] = std::log(sum);
  if (sum == 0) return;
  double delta = 0;
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    weight[static_cast<std::size_t>(j)] /= sum;
    for (std::int64_t d = 0; d < dim; ++d) {
      r.out[q + static_cast<std::size_t>(d)] +=
          weight[static_cast<std::size_t>(j)] * p.v[p.k_at(b, j, kv) + static_cast<std::size_t>(d)];
    }
  }
  for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {  // from the output as it is stored
    delta += (p.bf16 ? value_of(stored<Bf16>(r.out[q + d])) : r.out[q + d]) * p.dout[q + d];
  }
  for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
    const double w = weight[static_cast<std::size_t>(j)];
    const std::size_t k = p.k_at(b, j, kv);
    double dp = 0;
    for (std::int64_t d = 0; d < dim; ++d)
      dp += p.dout[q + static_cast<std::size_t>(d)] * p.v[k + static_cast<std::size_t>(d)];
    const double ds = w * (dp - delta) * p.scale();
    for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {
      r.dq[q + d] += ds * p.k[k + d];
      r.dk[k + d] += ds * p.q[q + d];
      r.dv[k + d] += w * p.dout[q + d];
    }
  }
}

Results reference(const Problem& p) {
  Results r{Doubles(p.q.size()), Doubles(static_cast<std::size_t>(kBatch * kHeads * p.shape.q_length)),
            Doubles(p.q.size()), Doubles(p.k.size()), Doubles(p.k.size())};
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t t = 0; t < p.shape.q_length; ++t) {
      for (std::int64_t h = 0; h < kHeads; ++h) attend(p, b, t, h, r);
    }
  }
  return r;
}

FlashShape flash_shape(const Problem& p) {
  return {.batch = kBatch,
          .q_length = p.shape.q_length,
          .k_length = p.shape.k_length,
          .heads = kHeads,
          .kv_heads = kKvHeads,
          .head_dim = p.shape.head_dim,
          .scale = static_cast<float>(p.scale()),
          .causal = p.shape.causal,
          .row_starts = p.shape.documents ? p.row_starts.data() : nullptr,
          .key_mask = p.shape.padding ? p.key_mask.data() : nullptr};
}

template <class T>
struct Stored {
  explicit Stored(const Problem& p)
      : q(p.q),
        k(p.k),
        v(p.v),
        dout(p.dout),
        q_token(kHeads * p.shape.head_dim),
        k_token(kKvHeads * p.shape.head_dim),
        q_batch(p.shape.q_length * q_token),
        k_batch(p.shape.k_length * k_token) {}
  HeadView<const T> q_view(const Guarded<T>& x) const { return {x.data(), q_batch, q_token}; }
  HeadView<const T> k_view(const Guarded<T>& x) const { return {x.data(), k_batch, k_token}; }
  HeadView<T> q_view(Guarded<T>& x) const { return {x.data(), q_batch, q_token}; }
  HeadView<T> k_view(Guarded<T>& x) const { return {x.data(), k_batch, k_token}; }

  const Guarded<T> q, k, v, dout;
  std::int64_t q_token, k_token, q_batch, k_batch;
};

template <class T>
void check_flash(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Results expected = reference(p);
  const Stored<T> s(p);
  const FlashShape fs = flash_shape(p);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<T>);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<T>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    Guarded<T> out(s.q.size()), dq(s.q.size()), dk(s.k.size()), dv(s.k.size());
    Guarded<float> lse(kBatch * kHeads * shape.q_length);
    Guarded<float> scratch(flash_forward_scratch(fs)), scratch2(flash_backward_scratch(fs));
    const FlashForwardArgs<T> args{fs,         s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out),
                                   lse.data(), scratch.data()};
    forward[i].run(args, 0, 4);  // in the middle of a group of heads
    forward[i].run(args, 4, kBatch * kHeads);
    expect_near(out, expected.out);
    for (std::size_t r = 0; r < expected.lse.size(); ++r) {
      const double value = value_of(lse.data()[r]);
      ASSERT_TRUE(value == expected.lse[r] || std::abs(value - expected.lse[r]) < 1e-4) << "row " << r << ": " << value;
    }
    if (shape.q_length == shape.k_length) {
      const Guarded<T> done(expected.out);  // not the kernel's own, whose last bits may differ
      backward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout), lse.data(),
                       s.q_view(dq), s.k_view(dk), s.k_view(dv), scratch2.data()},
                      0, kBatch * kKvHeads);
      expect_near(dq, expected.dq);
      expect_near(dk, expected.dk);
      expect_near(dv, expected.dv);
    }
    EXPECT_TRUE(scratch.intact() && scratch2.intact() && lse.intact());
  }
}

TEST(FlashRaw, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 15, 47, 48, 49, 64, 65, 130}) {
    SCOPED_TRACE(t);
    check_flash<float>({t, t, 16, true});
    check_flash<float>({t, t, 16, false});
  }
}

TEST(FlashRaw, HeadSizesMatchDoublesInBothTypes) {
  for_both_types([]<class T>() {
    for (const std::int64_t dim : {16, 48, 64, 80, 128}) {
      SCOPED_TRACE(dim);
      check_flash<T>({66, 66, dim, true});
    }
  });
}

TEST(FlashRaw, DocumentsAndPaddingHideKeysAndBlindRowsAreZero) {
  for_both_types([]<class T>() {
    check_flash<T>({97, 97, 32, true, true, false});
    check_flash<T>({97, 97, 32, true, false, true});
    check_flash<T>({97, 97, 32, false, false, true});
    check_flash<T>({97, 97, 32, true, true, true});
  });
}

TEST(FlashRaw, FewQueriesAtTheEndOfManyKeys) {
  for_both_types([]<class T>() {
    check_flash<T>({5, 70, 32, true});
    check_flash<T>({49, 128, 64, true, false, true});
  });
}

TEST(FlashRaw, NanInAQueryReachesItsOutputAndItsGradient) {
  Problem p = make_problem<float>({6, 6, 16, true});
  p.q[p.q_at(0, 2, 1)] = std::nan("");
  const Stored<float> s(p);
  const FlashShape fs = flash_shape(p);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<float>);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    Guarded<float> out(s.q.size()), dq(s.q.size()), dk(s.k.size()), dv(s.k.size()), lse(kBatch * kHeads * 6);
    Guarded<float> scratch(flash_forward_scratch(fs) + flash_backward_scratch(fs));
    forward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out), lse.data(), scratch.data()}, 0, 12);
    const Guarded<float>& done = out;
    backward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout), lse.data(),
                     s.q_view(dq), s.k_view(dk), s.k_view(dv), scratch.data()},
                    0, 4);
    EXPECT_TRUE(std::isnan(out.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(dq.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(dv.data()[p.k_at(0, 0, 0)]));
    EXPECT_FALSE(std::isnan(out.data()[p.q_at(0, 3, 1)])) << "other queries are not touched";
  }
}

// Decoding: the last `tokens` queries of a causal problem, keys in a larger cache, sequence 1 padded on the left.
template <class T>
void check_decode(std::int64_t tokens, std::int64_t length, std::int64_t dim) {
  constexpr std::int64_t kCapacity = 90;
  Problem p = make_problem<T>({tokens, length, dim, true, true});
  const std::vector<std::int64_t> starts{0, length / 3};
  for (std::int64_t t = 0; t < tokens; ++t) {
    p.row_starts[static_cast<std::size_t>(t)] = 0;
    p.row_starts[static_cast<std::size_t>(tokens + t)] = static_cast<std::int32_t>(length / 3);
  }
  const Results expected = reference(p);
  const std::int64_t sequence = kKvHeads * dim;
  Guarded<T> k(kBatch * kCapacity * sequence), v(kBatch * kCapacity * sequence);  // NaN beyond the length
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t i = 0; i < length * sequence; ++i) {
      k.data()[b * kCapacity * sequence + i] = stored<T>(p.k[static_cast<std::size_t>(b * length * sequence + i)]);
      v.data()[b * kCapacity * sequence + i] = stored<T>(p.v[static_cast<std::size_t>(b * length * sequence + i)]);
    }
  }
  const Guarded<T> q(p.q);
  for (const auto& version : GANTRY_ISA_VERSIONS(decode_attention<T>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> out(q.size());
    Guarded<float> scratch(length);
    version.run({q.data(), kHeads * dim, k.data(), v.data(), out.data(), tokens, kHeads, kKvHeads, dim, kCapacity,
                 length, starts.data(), static_cast<float>(p.scale()), scratch.data()},
                0, kBatch * tokens * kHeads);
    expect_near(out, expected.out);
    EXPECT_TRUE(scratch.intact());
  }
}

TEST(DecodeRaw, MatchesDoublesForOddSizes) {
  for_both_types([]<class T>() {
    for (const std::int64_t dim : {8, 16, 17, 64, 80, 100}) {
      SCOPED_TRACE(dim);
      check_decode<T>(1, 1, dim);
      check_decode<T>(1, 37, dim);
      check_decode<T>(4, 90, dim);
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
