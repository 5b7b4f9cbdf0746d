// The optimiser against torch's AdamW, under every instruction set.
#include "gantry/kernels/adamw/adamw.h"

#include <torch/optim/adamw.h>

#include <cstdlib>

#include "gantry/base/isa.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

/// Runs the body once for every instruction set, as GANTRY_ISA would choose it.
template <class Body>
void for_every_isa(Body body) {
  for (const auto isa : {base::Isa::kScalar, base::Isa::kAvx2, base::Isa::kAvx512, base::Isa::kAvx512Bf16}) {
    if (isa > base::best_isa()) continue;
    SCOPED_TRACE(base::isa_name(isa));
    ::setenv("GANTRY_ISA", std::string(base::isa_name(isa)).c_str(), 1);
    base::reset_isa_for_testing();
    body();
  }
  ::unsetenv("GANTRY_ISA");
  base::reset_isa_for_testing();
}

struct States {
  explicit States(const at::Tensor& start)
      : weight(start.clone()), first(at::zeros_like(start)), second(at::zeros_like(start)) {}
  at::Tensor weight, first, second;
};

at::Tensor gradient_of_step(std::int64_t step, std::int64_t n) {
  return normal({n}, 100 + static_cast<std::uint64_t>(step));
}

constexpr std::int64_t kCount = 200003;  // several pieces of work and an odd rest

AdamwParameters parameters_of_step(std::int64_t step) {
  return {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1, .step = step};
}

TEST(Adamw, TenStepsMatchTorch) {
  const at::Tensor start = normal({kCount}, 1).to(at::kFloat);
  const at::Tensor theirs = start.clone().requires_grad_();
  torch::optim::AdamW optimizer({theirs},
                                torch::optim::AdamWOptions(0.01).betas({0.9, 0.98}).eps(1e-8).weight_decay(0.1));
  for (std::int64_t step = 1; step <= 10; ++step) {
    theirs.mutable_grad() = gradient_of_step(step, kCount).to(at::kFloat);
    optimizer.step();
  }
  for_every_isa([&] {
    States states(start);
    for (std::int64_t step = 1; step <= 10; ++step) {
      adamw_(states.weight, gradient_of_step(step, kCount).to(at::kFloat), states.first, states.second,
             parameters_of_step(step));
    }
    EXPECT_LT(error_of(states.weight - start, (theirs.detach() - start).to(at::kDouble)), 1e-5);
    EXPECT_LT((states.weight - theirs.detach()).abs().max().item<double>(), 1e-5);
  });
}

TEST(Adamw, GradientScaleEqualsScalingTheGradient) {
  const at::Tensor start = normal({1001}, 1).to(at::kFloat), gradient = normal({1001}, 2).to(at::kFloat);
  States a(start), b(start);
  AdamwParameters parameters = parameters_of_step(1);
  adamw_(a.weight, gradient * 0.25, a.first, a.second, parameters);
  parameters.gradient_scale = 0.25;
  adamw_(b.weight, gradient, b.first, b.second, parameters);
  EXPECT_TRUE(at::equal(a.weight, b.weight));
  EXPECT_TRUE(at::equal(a.second, b.second));
}

TEST(Adamw, SplitMastersFollowFp32MastersBitByBit) {
  const at::Tensor start = normal({kCount}, 1).to(at::kFloat) * 1.00001;
  for_every_isa([&] {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      States plain(start), split(start);
      auto [weight, remainder] = split_master(start);
      for (std::int64_t step = 1; step <= 10; ++step) {
        const at::Tensor gradient = gradient_of_step(step, kCount);  // exact in bf16
        adamw_(plain.weight, gradient.to(at::kFloat), plain.first, plain.second, parameters_of_step(step));
        adamw_split_(weight, remainder, gradient.to(type), split.first, split.second, parameters_of_step(step));
      }
      EXPECT_TRUE(at::equal(join_master(weight, remainder), plain.weight));
      EXPECT_TRUE(at::equal(split.second, plain.second));
      EXPECT_LT(error_of(weight, plain.weight.to(at::kDouble)), 0x1p-8);
    }
  });
}

TEST(Adamw, SumOfSquaresInFp64) {
  for (const std::int64_t n : {0, 5, 3000001}) {
    const at::Tensor x = normal({n}, 3);
    const double expected = x.square().sum().item<double>();
    EXPECT_NEAR(sum_of_squares(x), expected, expected * 1e-12);
    EXPECT_NEAR(sum_of_squares(x.to(at::kFloat)), expected, expected * 1e-6);
    EXPECT_NEAR(sum_of_squares(x.to(at::kBFloat16)), expected, expected * 1e-6);
    EXPECT_EQ(sum_of_squares(x.to(at::kFloat)), sum_of_squares(x.to(at::kFloat)));
  }
  EXPECT_TRUE(std::isnan(sum_of_squares(at::tensor({1.0f, NAN}))));
}

TEST(Adamw, MessagesNameTheWrongState) {
  const at::Tensor w = at::zeros({8}), half = w.to(at::kBFloat16), low = at::zeros({8}, at::kShort);
  const AdamwParameters p;
  EXPECT_MESSAGE(adamw_(half, w, w, w, p), "adamw: weight must be a contiguous Float vector of 8, got BFloat16 [8]");
  EXPECT_MESSAGE(adamw_(w, at::zeros({7}), w, w, p), "gradient must be a contiguous Float vector of 8, got Float [7]");
  EXPECT_MESSAGE(adamw_(w, w, at::zeros({2, 4}), w, p),
                 "first moment must be a contiguous Float vector of 8, got Float [2, 4]");
  EXPECT_MESSAGE(adamw_(w, w, w, at::zeros({16}).slice(0, 0, 16, 2), p), "second moment must be a contiguous");
  EXPECT_MESSAGE(adamw_split_(half, at::zeros({8}, at::kInt), w, w, w, p),
                 "remainder must be a contiguous Short vector of 8");
  EXPECT_MESSAGE(adamw_split_(half, low, w.to(at::kDouble), w, w, p), "gradient must be a contiguous Float vector");
  EXPECT_MESSAGE(split_master(half), "master must be a contiguous Float vector");
  EXPECT_MESSAGE(join_master(half, at::zeros({9}, at::kShort)),
                 "remainder must be a contiguous Short vector of 8, got Short [9]");
  EXPECT_MESSAGE(sum_of_squares(at::zeros({4, 4}).t()), "sum_of_squares: expected a contiguous tensor");
}

}  // namespace
}  // namespace gantry::kernels
