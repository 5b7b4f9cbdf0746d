// Attention that keeps its probabilities, with dropout in their sign bits, against double-precision loops, for every
// instruction set.
#include <algorithm>

#include "gantry/kernels/attention/stored_raw.h"
#include "tests/kernels/attention_attempt.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Mask = Case::Mask;

// Output and gradients in doubles from the probabilities and signs that were stored.
template <class T>
Results from_stored(const Problem& p, const StoredAttempt<T>& a) {
  Results r{Doubles(p.q.size()), {},
            Doubles(p.q.size()), Doubles(p.k.size()),
            Doubles(p.k.size()), Doubles(static_cast<std::size_t>(a.p.size()))};
  const auto dim = static_cast<std::size_t>(p.shape.head_dim);
  const double kept = keep_scale(p.rule().threshold);
  for (std::int64_t row = 0; row < kBatch * kHeads * p.shape.q_length; ++row) {
    const std::int64_t t = row % p.shape.q_length, h = row / p.shape.q_length % kHeads,
                       b = row / p.shape.q_length / kHeads;
    const std::size_t q = p.q_at(b, t, h);
    double delta = 0;
    for (std::size_t d = 0; d < dim; ++d) delta += value_of(a.out.data()[q + d]) * p.dout[q + d];
    for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
      const std::size_t k = p.k_at(b, j, h / (kHeads / kKvHeads)), at = p.score_at(b, h, t, j);
      const double stored = value_of(a.p.data()[at]), w = std::abs(stored), factor = std::signbit(stored) ? 0 : kept;
      double dp = 0;
      for (std::size_t d = 0; d < dim; ++d) dp += p.dout[q + d] * p.v[k + d];
      const double change = w * (factor * dp - delta), ds = change * p.scale();
      r.dscores[at] = change;
      for (std::size_t d = 0; d < dim; ++d) {
        r.out[q + d] += w * factor * p.v[k + d];
        r.dq[q + d] += ds * p.k[k + d];
        r.dk[k + d] += ds * p.q[q + d];
        r.dv[k + d] += w * factor * p.dout[q + d];
      }
    }
  }
  return r;
}

// Softmax before dropout.
Doubles probabilities(const Problem& p) {
  const Results r = reference(p);
  Doubles result(r.dscores.size());
  for (std::int64_t row = 0; row < kBatch * kHeads * p.shape.q_length; ++row) {
    const std::int64_t t = row % p.shape.q_length, h = row / p.shape.q_length % kHeads,
                       b = row / p.shape.q_length / kHeads;
    for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
      if (!p.sees(b, h, t, j)) continue;
      double score = p.addend(b, h, t, j);
      for (std::size_t d = 0; d < static_cast<std::size_t>(p.shape.head_dim); ++d) {
        score += p.scale() * p.q[p.q_at(b, t, h) + d] * p.k[p.k_at(b, j, h / (kHeads / kKvHeads)) + d];
      }
      result[p.score_at(b, h, t, j)] = std::exp(score - r.lse[static_cast<std::size_t>(row)]);
    }
  }
  return result;
}

// Probabilities are softmax's, signs are the exported mask's where a key is in reach.
template <class T>
void expect_stored(const Problem& p, const StoredAttempt<T>& a, const Doubles& exact) {
  const DropoutRule rule = p.rule();
  for (std::int64_t row = 0; row < kBatch * kHeads * p.shape.q_length; ++row) {
    const std::int64_t t = row % p.shape.q_length, h = row / p.shape.q_length % kHeads,
                       b = row / p.shape.q_length / kHeads;
    for (std::int64_t j = 0; j < p.shape.k_length; ++j) {
      const std::size_t at = p.score_at(b, h, t, j);
      const double value = value_of(a.p.data()[at]), w = exact[at];
      ASSERT_NEAR(std::abs(value), w, tolerance<T>(w, 0.1)) << "row " << row << ", key " << j;
      if (!p.sees(b, h, t, j)) {
        ASSERT_EQ(value, 0.0);
      } else {
        ASSERT_EQ(std::signbit(value), rule.threshold != 0 && p.keep[at] == 0) << "row " << row << ", key " << j;
      }
    }
  }
}

template <class T>
void check(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Doubles exact = probabilities(p);
  const Stored<T> s(p);
  const auto forward = GANTRY_ISA_VERSIONS(stored_forward<T>);
  const auto backward = GANTRY_ISA_VERSIONS(stored_backward<T>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    StoredAttempt<T> a(p, s);
    forward[i].run(a.forward(s), 0, 5);
    forward[i].run(a.forward(s), 5, kBatch * kHeads);
    expect_stored(p, a, exact);
    const Results expected = from_stored(p, a);
    expect_near(a.out, expected.out);
    backward[i].run(a.backward(s), 0, kBatch * kKvHeads);
    expect_near(a.dq, expected.dq);
    expect_near(a.dk, expected.dk);
    expect_near(a.dv, expected.dv);
    expect_near(a.dscores, expected.dscores);
    EXPECT_TRUE(a.p.intact() && a.forward_scratch.intact() && a.scratch.intact());
  }
}

TEST(StoredAttentionRaw, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 7, 9, 16, 17, 47, 48, 49, 63, 64, 65, 130}) {
    SCOPED_TRACE(t);
    for (const bool causal : {false, true}) {
      check<float>({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal, .dropout = 0.25});
    }
  }
}

TEST(StoredAttentionRaw, MasksPaddingAndGroupsMatchDoublesInBothTypes) {
  for_both_types([]<class T>() {
    for (const Mask mask : {Mask::kNone, Mask::kVisible, Mask::kAdded, Mask::kShared}) {
      for (const double p : {0.0, 0.1}) {
        SCOPED_TRACE(::testing::Message() << "mask " << static_cast<int>(mask) << ", p " << p);
        check<T>({.q_length = 67, .k_length = 67, .head_dim = 48, .causal = false, .mask = mask, .dropout = p});
        check<T>({.q_length = 50,
                  .k_length = 135,
                  .head_dim = 16,
                  .causal = true,
                  .documents = true,
                  .padding = true,
                  .mask = mask,
                  .dropout = p});
      }
    }
  });
}

TEST(StoredAttentionRaw, MoreQueriesThanKeysLeaveTheFirstOnesBlind) {
  for_both_types(
      []<class T>() { check<T>({.q_length = 120, .k_length = 9, .head_dim = 32, .causal = true, .dropout = 0.1}); });
}

TEST(StoredAttentionRaw, EverythingDroppedIsZeroAndSoAreItsGradients) {
  const Problem p = make_problem<float>({.q_length = 9, .k_length = 9, .head_dim = 16, .causal = true, .dropout = 1});
  const Stored<float> s(p);
  const auto backward = GANTRY_ISA_VERSIONS(stored_backward<float>);
  const auto forward = GANTRY_ISA_VERSIONS(stored_forward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    StoredAttempt<float> a(p, s);
    forward[i].run(a.forward(s), 0, kBatch * kHeads);
    backward[i].run(a.backward(s), 0, kBatch * kKvHeads);
    for (const auto* x : {&a.out, &a.dq, &a.dk, &a.dv}) {
      for (const double value : x->values()) ASSERT_EQ(value, 0.0);
    }
  }
}

TEST(StoredAttentionRaw, NanInAQueryReachesItsOutputAndItsGradientAndNothingElse) {
  Problem p = make_problem<float>({.q_length = 6, .k_length = 6, .head_dim = 16, .causal = true, .dropout = 0.5});
  p.q[p.q_at(0, 2, 1)] = std::nan("");
  const Stored<float> s(p);
  const auto backward = GANTRY_ISA_VERSIONS(stored_backward<float>);
  const auto forward = GANTRY_ISA_VERSIONS(stored_forward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    StoredAttempt<float> a(p, s);
    forward[i].run(a.forward(s), 0, kBatch * kHeads);
    backward[i].run(a.backward(s), 0, kBatch * kKvHeads);
    EXPECT_TRUE(std::isnan(a.out.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(a.dq.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(a.dv.data()[p.k_at(0, 0, 0)]));
    EXPECT_FALSE(std::isnan(a.out.data()[p.q_at(0, 3, 1)]));
    EXPECT_FALSE(std::isnan(a.dq.data()[p.q_at(0, 3, 1)]));
  }
}

}  // namespace
}  // namespace gantry::kernels
