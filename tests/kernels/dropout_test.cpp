// Dropout by replay and by bit masks against the exported mask.
#include "gantry/kernels/dropout/dropout.h"

#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

DropoutRule rule_of(double p, std::uint64_t seed = 7) { return {.seed = seed, .threshold = dropout_threshold(p)}; }

at::Tensor with_threads(int threads, const std::function<at::Tensor()>& body) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  at::Tensor result = body();
  at::set_num_threads(before);
  return result;
}

TEST(Dropout, BothMaskFormsMatchTheReferenceInValueAndGradient) {
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{1}, {7, 33}, {3, 5, 1000}, {2049}}) {
    const at::Tensor x = normal(shape, 1);
    for (const double p : {0.1, 0.5, 0.97}) {
      const DropoutRule rule = rule_of(p);
      const Op plain = [&](const variable_list& in) { return variable_list{dropout_reference(in[0], rule)}; };
      for (const auto mask : {DropoutMask::kReplay, DropoutMask::kBits}) {
        expect_matches([&](const variable_list& in) { return variable_list{dropout(in[0], rule, mask)}; }, plain, {x});
      }
    }
  }
}

TEST(Dropout, ForwardAndBackwardDrawTheExportedMaskForEveryThreadCount) {
  const DropoutRule rule = rule_of(0.3);
  const at::Tensor keep = dropout_keep_mask({311, 1003}, rule);
  for (const int threads : {1, 2, 3, 7}) {
    for (const auto mask : {DropoutMask::kReplay, DropoutMask::kBits}) {
      const at::Tensor x = at::ones({311, 1003}).requires_grad_();
      const at::Tensor y = with_threads(threads, [&] {
        at::Tensor value = dropout(x, rule, mask);
        value.sum().backward();
        return value;
      });
      EXPECT_TRUE(at::equal(y != 0, keep)) << threads;
      EXPECT_TRUE(at::equal(x.grad(), y)) << threads;
    }
  }
}

// 5 deviations of a binomial count; the variance of keep / rate is p / (1 - p).
TEST(Dropout, MeanAndVarianceAreThoseOfABernoulliVariable) {
  constexpr std::int64_t kCount = 4'000'000;
  for (const double p : {0.1, 0.5, 0.9}) {
    const at::Tensor y = dropout(at::ones({kCount}), rule_of(p, 123)).to(at::kDouble);
    const double deviation = std::sqrt(p / (1 - p)), standard_error = deviation / std::sqrt(double{kCount});
    EXPECT_NEAR(y.mean().item<double>(), 1.0, 5 * standard_error);
    EXPECT_NEAR(y.std().item<double>(), deviation, 20 * standard_error);
  }
}

TEST(Dropout, KeepsNothingOrOneBitAnElement) {
  const at::Tensor x = at::ones({100, 77}).requires_grad_();
  for (const auto& [mask, kept] : {std::pair{DropoutMask::kReplay, 0}, std::pair{DropoutMask::kBits, (7700 + 7) / 8}}) {
    const tensor::LiveBytes live;
    const at::Tensor y = dropout(x, rule_of(0.1), mask);
    EXPECT_EQ(live.now(), 7700 * 4 + kept);
  }
}

TEST(Dropout, ZeroIsTheIdentityAndOneGivesZeros) {
  const at::Tensor x = at::randn({50}).requires_grad_();
  EXPECT_TRUE(dropout(x, rule_of(0)).is_same(x));
  const at::Tensor y = dropout(x, rule_of(1));
  EXPECT_TRUE(at::equal(y, at::zeros({50})));
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::zeros({50})));
}

TEST(Dropout, NanAndInfinitySurvive) {
  at::Tensor x = at::ones({64});
  x[3] = NAN;
  x[40] = INFINITY;
  for (const double p : {0.1, 0.9}) {
    const at::Tensor y = dropout(x, rule_of(p));
    EXPECT_TRUE(y[3].isnan().item<bool>());
    EXPECT_FALSE(y[40].isfinite().item<bool>());
    EXPECT_TRUE(at::equal(y.isnan(), dropout_reference(x, rule_of(p)).isnan()));
  }
}

TEST(Dropout, StridedInputsFollowLogicalPositions) {
  const at::Tensor x = normal({40, 30}, 1).to(at::kFloat);
  const at::Tensor y = dropout(x.t(), rule_of(0.4));
  EXPECT_TRUE(at::equal(y, dropout(x.t().contiguous(), rule_of(0.4))));
  const at::Tensor row = at::ones({1, 30}).requires_grad_();
  dropout(row.expand({40, 30}), rule_of(0.4)).sum().backward();
  EXPECT_TRUE(at::allclose(row.grad()[0], dropout(at::ones({40, 30}), rule_of(0.4)).sum(0)));
}

TEST(Dropout, SecondDerivativesPassThroughTheSameMask) {
  for (const auto mask : {DropoutMask::kReplay, DropoutMask::kBits}) {
    const at::Tensor x = normal({33}, 1).to(at::kFloat).requires_grad_(), y = dropout(x * x, rule_of(0.4), mask);
    const at::Tensor first = torch::autograd::grad({y.sum()}, {x}, {}, true, true)[0];
    const at::Tensor second = torch::autograd::grad({first.sum()}, {x})[0];
    EXPECT_TRUE(at::allclose(second, dropout(at::full({33}, 2.0f), rule_of(0.4))));
  }
}

TEST(Dropout, RulesComeFromTheGenerator) {
  auto generator = at::detail::createCPUGenerator(5), same = at::detail::createCPUGenerator(5);
  const DropoutRule first = draw_dropout(0.1, generator), second = draw_dropout(0.1, generator);
  EXPECT_NE(first.seed, second.seed);
  EXPECT_EQ(first.seed, draw_dropout(0.1, same).seed);
  EXPECT_EQ(first.threshold, 6554u);
  EXPECT_EQ(draw_dropout(0, generator).threshold, 0u);
  torch::manual_seed(11);
  const DropoutRule global = draw_dropout(0.5);
  torch::manual_seed(11);
  EXPECT_EQ(draw_dropout(0.5).seed, global.seed);
}

TEST(Dropout, MessagesNameWhatIsWrong) {
  EXPECT_MESSAGE(draw_dropout(1.5), "dropout: p is 1.5, expected 0 to 1");
  EXPECT_MESSAGE(draw_dropout(NAN), "expected 0 to 1");
  EXPECT_MESSAGE(dropout(at::ones({3}, at::kLong), rule_of(0.5)), "dropout: input is Long");
}

}  // namespace
}  // namespace gantry::kernels
