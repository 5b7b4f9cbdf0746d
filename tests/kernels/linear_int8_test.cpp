// Linear operators that keep their input in int8, against those that keep it as it is.
#include "gantry/kernels/linear/linear.h"
#include "gantry/kernels/stash/stash.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

Op packed(bool fused, WeightLayout layout = WeightLayout::kOutIn) {
  return [=](const variable_list& in) -> variable_list {
    if (fused) return {fused_linear_int8_input(in[0], {in[1], in[2]}, {in[3], in[4]})};
    return {linear_int8_input(in[0], in[1], in[2], layout)};
  };
}

Op unpacked(bool fused, WeightLayout layout = WeightLayout::kOutIn) {
  return [=](const variable_list& in) -> variable_list {
    if (fused) return {fused_linear(in[0], {in[1], in[2]}, {in[3], in[4]})};
    return {kernels::linear(in[0], in[1], in[2], layout)};
  };
}

TEST(LinearInt8Input, OnlyTheWeightGradientsAreThoseOfThePackedInput) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const std::int64_t rows : {0, 3, 40, 300}) {
      if (rows == 300 && type != at::kFloat) continue;  // for the own matrix product
      for (const int form : {0, 1, 2}) {
        SCOPED_TRACE(::testing::Message() << type << ", " << rows << " rows, form " << form);
        const bool fused = form == 2;
        const auto layout = form == 1 ? WeightLayout::kInOut : WeightLayout::kOutIn;
        variable_list in{normal({rows, 256}, 1),
                         layout == WeightLayout::kOutIn ? normal({260, 256}, 2) : normal({256, 260}, 2),
                         normal({260}, 3)};
        if (fused) in = {in[0], in[1], normal({70, 256}, 4), normal({260}, 3), normal({70}, 5)};
        const std::size_t weights = fused ? 2 : 1;
        const variable_list heads{normal({rows, fused ? 330 : 260}, 6)};
        const Traced exact = run(unpacked(fused, layout), in, type, heads);
        const Traced actual = run(packed(fused, layout), in, type, heads);
        variable_list restored = in;
        restored[0] = unstash(stash(in[0].to(type)));
        const Traced expected = run(unpacked(fused, layout), restored, type, heads);
        EXPECT_TRUE(at::equal(actual.outputs[0], exact.outputs[0]));
        for (std::size_t i = 0; i < in.size(); ++i) {
          const bool weight = i > 0 && i <= weights;
          EXPECT_TRUE(at::equal(actual.gradients[i], (weight ? expected : exact).gradients[i])) << i;
          const double error = error_of(actual.gradients[i], exact.gradients[i].to(at::kDouble));
          EXPECT_LT(error, weight ? 0.01 : 1e-30) << i;
        }
      }
    }
  }
}

TEST(LinearInt8Input, KeepsThePackedInputOrNothing) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const std::int64_t rows : {0, 3, 40}) {
      variable_list in;
      for (const auto& t :
           {normal({24, rows}, 1), normal({5, 24}, 2), normal({7, 24}, 3), normal({5}, 4), normal({7}, 5)})
        in.push_back(t.to(type).requires_grad_());
      const at::Tensor x = in[0].t();  // strides would cost a copy where the input is kept as it is
      const auto bytes = [&](bool fused) {
        const tensor::LiveBytes live;
        const at::Tensor y =
            fused ? fused_linear_int8_input(x, {in[1], in[2]}, {in[3], in[4]}) : linear_int8_input(x, in[1], in[3]);
        return live.now() - static_cast<std::int64_t>(y.nbytes());
      };
      EXPECT_EQ(bytes(false), stashed_bytes(rows * 24));
      EXPECT_EQ(bytes(true), stashed_bytes(rows * 24));
      in[1].requires_grad_(false);
      EXPECT_EQ(bytes(false), 0);
      EXPECT_EQ(bytes(true), stashed_bytes(rows * 24));
      const at::NoGradGuard no_grad;
      EXPECT_EQ(bytes(true), 0);
    }
  }
}

TEST(LinearInt8Input, SlotsRetainedGraphsAndSecondDerivatives) {
  const at::Tensor x = normal({40, 64}, 1).to(at::kFloat).requires_grad_();
  const at::Tensor w = normal({32, 64}, 2).to(at::kFloat).requires_grad_();
  const at::Tensor y = linear_int8_input(x, w).sum();
  const at::Tensor first = torch::autograd::grad({y}, {w}, {}, true)[0];
  EXPECT_TRUE(at::equal(torch::autograd::grad({y}, {w}, {}, true)[0], first));
  const at::Tensor dx = torch::autograd::grad({y}, {x}, {}, true, true)[0];
  std::string message;
  try {
    dx.sum().backward();
  } catch (const std::exception& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("linear_int8_input: second derivatives are not available"), std::string::npos) << message;
  Sinks sinks({w});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  for (int i = 0; i < 2; ++i) linear_int8_input(x, w).sum().backward();
  EXPECT_LT(error_of(sinks[0], 2.0 * first.to(at::kDouble)), 1e-6);
  EXPECT_FALSE(w.grad().defined());
}

}  // namespace
}  // namespace gantry::kernels
