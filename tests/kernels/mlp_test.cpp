// Feed-forward blocks as one node: gradients, what is kept, and the traps of autograd.
#include "gantry/kernels/mlp/mlp.h"

#include "gantry/kernels/activation/activation.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr Activation kMlpKinds[] = {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu,
                                    Activation::kQuickGelu};

/// x, weight1, bias1, weight2, bias2.
variable_list mlp_inputs(std::int64_t rows, std::int64_t in, std::int64_t inner, std::int64_t out,
                         WeightLayout layout) {
  const bool out_in = layout == WeightLayout::kOutIn;
  const auto shape = [&](std::int64_t a, std::int64_t b) {
    return out_in ? std::vector<std::int64_t>{b, a} : std::vector<std::int64_t>{a, b};
  };
  return {normal({2, rows, in}, 1), normal(shape(in, inner), 2, 0.3), normal({inner}, 3),
          normal(shape(inner, out), 4, 0.3), normal({out}, 5)};
}

Op mlp_op(Activation kind, WeightLayout layout) {
  return [=](const variable_list& in) -> variable_list {
    return {mlp(in[0],
                {in[1], in.size() > 4 ? in[2] : at::Tensor(), in[in.size() > 4 ? 3 : 2],
                 in.size() > 4 ? in[4] : at::Tensor(), layout},
                kind)};
  };
}

Op plain_mlp(Activation kind, WeightLayout layout) {
  return [=](const variable_list& in) -> variable_list {
    const auto linear = [&](const at::Tensor& x, const at::Tensor& weight) {
      return at::matmul(x, layout == WeightLayout::kOutIn ? weight.t() : weight);
    };
    if (in.size() == 3) return {linear(activation_reference(linear(in[0], in[1]), kind), in[2])};
    return {linear(activation_reference(linear(in[0], in[1]) + in[2], kind), in[3]) + in[4]};
  };
}

/// x, gate, up, down, and three biases.
variable_list gated_inputs(std::int64_t rows, std::int64_t in, std::int64_t inner, std::int64_t out) {
  return {normal({rows, in}, 1),
          normal({inner, in}, 2, 0.3),
          normal({inner, in}, 3, 0.3),
          normal({out, inner}, 4, 0.3),
          normal({inner}, 5),
          normal({inner}, 6),
          normal({out}, 7)};
}

Op gated(Activation kind) {
  return [=](const variable_list& in) -> variable_list {
    if (in.size() == 4) return {gated_mlp(in[0], {in[1], in[2], in[3], {}, {}, {}}, kind)};
    return {gated_mlp(in[0], {in[1], in[2], in[3], in[4], in[5], in[6]}, kind)};
  };
}

Op plain_gated(Activation kind) {
  return [=](const variable_list& in) -> variable_list {
    const auto linear = [&](const at::Tensor& x, std::size_t weight) {
      const at::Tensor y = at::matmul(x, in[weight].t());
      return in.size() > 4 ? y + in[weight + 3] : y;
    };
    return {linear(activation_reference(linear(in[0], 1), kind) * linear(in[0], 2), 3)};
  };
}

TEST(Mlp, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const Activation kind : kMlpKinds) {
    for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
      for (const std::int64_t rows : {0, 3, 70}) {
        SCOPED_TRACE(rows);
        const variable_list all = mlp_inputs(rows, 24, 37, 19, layout);
        expect_matches(mlp_op(kind, layout), plain_mlp(kind, layout), all, 2.0);
        expect_matches(mlp_op(kind, layout), plain_mlp(kind, layout), {all[0], all[1], all[3]}, 2.0);
      }
    }
  }
}

TEST(GatedMlp, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const Activation kind : kMlpKinds) {
    for (const std::int64_t rows : {0, 3, 70}) {
      SCOPED_TRACE(rows);
      variable_list all = gated_inputs(rows, 24, 37, 19);
      expect_matches(gated(kind), plain_gated(kind), all, 2.0);
      all.resize(4);
      expect_matches(gated(kind), plain_gated(kind), all, 2.0);
    }
  }
}

// The operators' own finite differences in fp64, along a random direction of each input.
void expect_directional_derivatives(const Op& op, const variable_list& in) {
  const variable_list weights = output_weights(op, in);
  const Traced traced = run(op, in, at::kDouble, weights);
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const at::Tensor direction = normal(in[i].sizes().vec(), 40 + i);
    const auto loss = [&](double step) {
      variable_list moved = in;
      moved[i] = in[i] + step * direction;
      return (op(moved)[0] * weights[0]).sum().item<double>();
    };
    const double numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5;
    const double analytic = (traced.gradients[i] * direction).sum().item<double>();
    EXPECT_NEAR(analytic, numeric, 1e-6 * std::max(1.0, std::abs(numeric))) << "input " << i;
  }
}

TEST(Mlp, Fp64GradientsMatchFiniteDifferences) {
  for (const Activation kind : kMlpKinds) {
    expect_directional_derivatives(mlp_op(kind, WeightLayout::kOutIn), mlp_inputs(11, 8, 13, 5, WeightLayout::kOutIn));
    expect_directional_derivatives(gated(kind), gated_inputs(11, 8, 13, 5));
  }
}

// The input lives outside; beside it only the activation's input is kept.
TEST(Mlp, KeepsOnlyTheActivationsInput) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto unit = static_cast<std::int64_t>(at::elementSize(type));
    variable_list in;
    for (const auto& tensor : mlp_inputs(9, 24, 37, 19, WeightLayout::kOutIn))
      in.push_back(tensor.to(type).requires_grad_());
    const Activation kind = Activation::kGeluErf;
    EXPECT_EQ(kept_beside([&] { return mlp_op(kind, WeightLayout::kOutIn)(in)[0]; }), 18 * 37 * unit);
    variable_list gate;
    for (const auto& tensor : gated_inputs(9, 24, 37, 19)) gate.push_back(tensor.to(type).requires_grad_());
    EXPECT_EQ(kept_beside([&] { return gated(kind)(gate)[0]; }), 9 * 2 * 37 * unit);
    const at::NoGradGuard no_grad;
    EXPECT_EQ(kept_beside([&] { return mlp_op(kind, WeightLayout::kOutIn)(in)[0]; }), 0);
    EXPECT_EQ(kept_beside([&] { return gated(kind)(gate)[0]; }), 0);
  }
}

TEST(Mlp, RetainedGraphsGiveTheSameGradientsAgain) {
  for (const bool is_gated : {false, true}) {
    variable_list in;
    const auto tensors = is_gated ? gated_inputs(9, 24, 37, 19) : mlp_inputs(9, 24, 37, 19, WeightLayout::kOutIn);
    for (const auto& tensor : tensors) in.push_back(tensor.to(at::kFloat).requires_grad_());
    const at::Tensor y = (is_gated ? gated(Activation::kSilu) : mlp_op(Activation::kSilu, WeightLayout::kOutIn))(in)[0];
    const auto gradients = [&](bool keep) { return torch::autograd::grad({y.sum()}, in, {}, keep); };
    const auto first = gradients(true), second = gradients(true), third = gradients(false);
    for (std::size_t i = 0; i < in.size(); ++i) {
      EXPECT_TRUE(at::equal(first[i], second[i]) && at::equal(first[i], third[i])) << i;
    }
  }
}

TEST(Mlp, SecondDerivativesAndSteppedWeightsAreRefusedInWords) {
  for (const bool is_gated : {false, true}) {
    variable_list in;
    const auto tensors = is_gated ? gated_inputs(9, 24, 37, 19) : mlp_inputs(9, 24, 37, 19, WeightLayout::kOutIn);
    for (const auto& tensor : tensors) in.push_back(tensor.to(at::kFloat).requires_grad_());
    const Op op = is_gated ? gated(Activation::kSilu) : mlp_op(Activation::kSilu, WeightLayout::kOutIn);
    const auto g = torch::autograd::grad({op(in)[0].sum()}, {in[0]}, {}, true, true)[0];
    EXPECT_NE(error_text([&] { g.sum().backward(); }).find("mlp: second derivatives are not available"),
              std::string::npos);
    const at::Tensor y = op(in)[0];
    {
      const at::NoGradGuard no_grad;
      in[1].mul_(0.5);
    }
    EXPECT_NE(error_text([&] { y.sum().backward(); }).find("modified by an inplace operation"), std::string::npos);
  }
}

TEST(Mlp, WeightGradientsGoToTheirSlots) {
  for (const bool is_gated : {false, true}) {
    const auto tensors = is_gated ? gated_inputs(40, 24, 37, 19) : mlp_inputs(20, 24, 37, 19, WeightLayout::kOutIn);
    const Op op = is_gated ? gated(Activation::kGeluTanh) : mlp_op(Activation::kGeluTanh, WeightLayout::kOutIn);
    variable_list in;
    for (const auto& tensor : tensors) in.push_back(tensor.to(at::kFloat).requires_grad_());
    const auto expected = torch::autograd::grad({op(in)[0].sum()}, in);
    const variable_list parameters(in.begin() + 1, in.end());
    Sinks sinks(parameters);
    const tensor::GradientSinks::Guard guard(sinks.registry());
    for (int i = 0; i < 2; ++i) op(in)[0].sum().backward();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_LT(error_of(sinks[i], 2.0 * expected[i + 1].to(at::kDouble)), 1e-5) << i;
      EXPECT_FALSE(parameters[i].grad().defined());
    }
  }
}

TEST(Mlp, FrozenWeightsStridedInputsAndNan) {
  const variable_list in = mlp_inputs(9, 24, 37, 19, WeightLayout::kOutIn);
  at::Tensor x = in[0].to(at::kFloat).transpose(0, 1).detach().requires_grad_();
  variable_list frozen;
  for (const auto& tensor : in) frozen.push_back(tensor.to(at::kFloat));
  frozen[0] = x;
  const at::Tensor y = mlp_op(Activation::kSilu, WeightLayout::kOutIn)(frozen)[0];
  const at::Tensor g = torch::autograd::grad({y.sum()}, {x})[0];
  const at::Tensor expected =
      torch::autograd::grad({plain_mlp(Activation::kSilu, WeightLayout::kOutIn)(frozen)[0].sum()}, {x})[0];
  EXPECT_LT(error_of(g, expected.to(at::kDouble)), 1e-5);
  // Not a number in one row stays in that row.
  frozen[0] = in[0].to(at::kFloat).clone();
  frozen[0][0][2][3] = NAN;
  frozen[0].requires_grad_();
  const at::Tensor odd = mlp_op(Activation::kGeluErf, WeightLayout::kOutIn)(frozen)[0];
  const at::Tensor slopes = torch::autograd::grad({odd.sum()}, {frozen[0]})[0];
  EXPECT_EQ(odd.isnan().sum().item<std::int64_t>(), 19);
  EXPECT_EQ(slopes.isnan().sum().item<std::int64_t>(), 24);
}

TEST(Mlp, Messages) {
  const at::Tensor x = at::zeros({3, 4}), w = at::zeros({5, 4}), v = at::zeros({6, 5});
  EXPECT_MESSAGE(mlp(x, {at::zeros({5, 3}), {}, v, {}}, Activation::kSilu),
                 "mlp: input of 4 features does not fit weight1 [5, 3]");
  EXPECT_MESSAGE(mlp(x, {w, {}, at::zeros({6, 4}), {}}, Activation::kSilu),
                 "weight2 [6, 4] does not fit weight1 [5, 4]");
  EXPECT_MESSAGE(gated_mlp(x, {w, at::zeros({5, 3}), v, {}, {}, {}}, Activation::kSilu),
                 "gated_mlp: input of 4 features");
  EXPECT_MESSAGE(gated_mlp(x, {w, w, v, at::zeros({5}), {}, {}}, Activation::kSilu), "give both or neither");
}

}  // namespace
}  // namespace gantry::kernels
