// Tiled attention with masks and with dropout against double-precision loops over the exported mask, for every
// instruction set.
#include <algorithm>

#include "tests/kernels/attention_attempt.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Mask = Case::Mask;

template <class T>
void check(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Results expected = reference(p);
  const Stored<T> s(p);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<T>);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<T>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    FlashAttempt<T> run(p, s);
    forward[i].run(run.forward(s), 0, 5);
    forward[i].run(run.forward(s), 5, kBatch * kHeads);
    expect_near(run.out, expected.out);
    const Guarded<T> done(expected.out);
    backward[i].run(run.backward(s, done), 0, kBatch * kKvHeads);
    expect_near(run.dq, expected.dq);
    expect_near(run.dk, expected.dk);
    expect_near(run.dv, expected.dv);
    expect_near(run.dscores, expected.dscores);
    EXPECT_TRUE(run.intact());
  }
}

TEST(FlashDropoutRaw, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 7, 8, 9, 47, 48, 49, 63, 64, 65, 96, 129}) {
    SCOPED_TRACE(t);
    for (const bool causal : {false, true}) {
      check<float>({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal, .dropout = 0.25});
    }
  }
}

TEST(FlashDropoutRaw, DifferentNumbersOfQueriesAndKeys) {
  for_both_types([]<class T>() {
    check<T>({.q_length = 5, .k_length = 130, .head_dim = 32, .causal = true, .dropout = 0.1});
    check<T>({.q_length = 97, .k_length = 13, .head_dim = 32, .causal = false, .dropout = 0.1});
    check<T>({.q_length = 97, .k_length = 67, .head_dim = 64, .causal = true, .dropout = 0.1});
  });
}

TEST(FlashDropoutRaw, MasksMatchDoubles) {
  for_both_types([]<class T>() {
    for (const Mask mask : {Mask::kVisible, Mask::kAdded, Mask::kShared}) {
      for (const double p : {0.0, 0.5}) {
        SCOPED_TRACE(::testing::Message() << "mask " << static_cast<int>(mask) << ", p " << p);
        check<T>({.q_length = 67, .k_length = 67, .head_dim = 16, .causal = false, .mask = mask, .dropout = p});
        check<T>({.q_length = 50,
                  .k_length = 70,
                  .head_dim = 48,
                  .causal = true,
                  .padding = true,
                  .mask = mask,
                  .dropout = p});
      }
    }
  });
}

TEST(FlashDropoutRaw, EverythingDroppedIsZeroAndSoAreItsGradients) {
  const Problem p = make_problem<float>({.q_length = 9, .k_length = 9, .head_dim = 16, .causal = true, .dropout = 1});
  const Stored<float> s(p);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<float>);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    FlashAttempt<float> run(p, s);
    forward[i].run(run.forward(s), 0, kBatch * kHeads);
    backward[i].run(run.backward(s, run.out), 0, kBatch * kKvHeads);
    for (const auto* x : {&run.out, &run.dq, &run.dk, &run.dv}) {
      for (const double value : x->values()) ASSERT_EQ(value, 0.0);
    }
  }
}

// The mask that a kernel used, read off its output: values that are the unit vectors of their keys.
TEST(FlashDropoutRaw, TheMaskIsTheExportedOneForEverySplitOfTheWork) {
  const std::int64_t keys = 64;
  Problem p =
      make_problem<float>({.q_length = 50, .k_length = keys, .head_dim = keys, .causal = false, .dropout = 0.3});
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t j = 0; j < keys; ++j) {
      for (std::int64_t d = 0; d < kKvHeads * keys; ++d) {
        p.v[p.k_at(b, j, 0) + static_cast<std::size_t>(d)] = d % keys == j ? 1 : 0;
      }
    }
  }
  const Stored<float> s(p);
  for (const auto& version : GANTRY_ISA_VERSIONS(flash_forward<float>)) {
    for (const std::int64_t piece : {1, 5, 12}) {
      SCOPED_TRACE(::testing::Message() << base::isa_name(version.isa) << ", pieces of " << piece);
      FlashAttempt<float> run(p, s);
      for (std::int64_t i = 0; i < kBatch * kHeads; i += piece) {
        version.run(run.forward(s), i, std::min(i + piece, kBatch * kHeads));
      }
      for (std::int64_t b = 0; b < kBatch; ++b) {
        for (std::int64_t t = 0; t < 50; ++t) {
          for (std::int64_t h = 0; h < kHeads; ++h) {
            for (std::int64_t j = 0; j < keys; ++j) {
              const float passed = run.out.data()[p.q_at(b, t, h) + static_cast<std::size_t>(j)];
              ASSERT_EQ(passed != 0, p.keep[p.score_at(b, h, t, j)] != 0) << b << " " << h << " " << t << " " << j;
            }
          }
        }
      }
    }
  }
}

// Loss = sum(out * dout) under the fixed mask: the reference's gradients are those of its own forward.
TEST(FlashDropoutRaw, ReferenceGradientsAreFiniteDifferencesUnderTheFixedMask) {
  Problem p = make_problem<float>(
      {.q_length = 7, .k_length = 9, .head_dim = 16, .causal = true, .mask = Mask::kAdded, .dropout = 0.3});
  const Results exact = reference(p);
  const auto loss = [&] {
    const Results r = reference(p);
    double sum = 0;
    for (std::size_t i = 0; i < r.out.size(); ++i) sum += r.out[i] * p.dout[i];
    return sum;
  };
  const auto differences = [&](Doubles& x, const Doubles& gradient) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < x.size(); i += 37) {
      const double at = x[i], step = 1e-5;
      x[i] = at + step;
      const double above = loss();
      x[i] = at - step;
      const double slope = (above - loss()) / (2 * step);
      x[i] = at;
      error += (slope - gradient[i]) * (slope - gradient[i]);
      norm += gradient[i] * gradient[i];
    }
    EXPECT_LT(std::sqrt(error / norm), 1e-6);
  };
  differences(p.q, exact.dq);
  differences(p.k, exact.dk);
  differences(p.v, exact.dv);
}

TEST(FlashDropoutRaw, NanInAValueReachesEveryQueryThatSeesItEvenWhereItIsDropped) {
  Problem p = make_problem<float>({.q_length = 20, .k_length = 20, .head_dim = 16, .causal = false, .dropout = 0.5});
  p.v[p.k_at(0, 4, 0)] = std::nan("");
  const Stored<float> s(p);
  for (const auto& version : GANTRY_ISA_VERSIONS(flash_forward<float>)) {
    FlashAttempt<float> run(p, s);
    version.run(run.forward(s), 0, kBatch * kHeads);
    for (std::int64_t t = 0; t < 20; ++t) {
      ASSERT_TRUE(std::isnan(run.out.data()[p.q_at(0, t, 0)])) << t;
      ASSERT_FALSE(std::isnan(run.out.data()[p.q_at(0, t, 0) + 1])) << t;
      ASSERT_FALSE(std::isnan(run.out.data()[p.q_at(1, t, 0)])) << t;
    }
  }
}

}  // namespace
}  // namespace gantry::kernels
