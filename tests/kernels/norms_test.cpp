// RMS norm, layer norm and their residual variants against compositions of ATen operators in fp64.
#include "tests/kernels/norm_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

variable_list rms(const variable_list& in) { return {rms_norm(in[0], in[1], kNormEps)}; }
variable_list layer(const variable_list& in) { return {layer_norm(in[0], in[1], in[2], kNormEps)}; }
variable_list add_rms(const variable_list& in) {
  const auto [sum, y] = add_rms_norm(in[0], in[1], in[2], kNormEps);
  return {sum, y};
}
variable_list add_rms_plain(const variable_list& in) {
  const at::Tensor sum = in[0] + in[1];
  return {sum, rms_norm_reference(sum, in[2], kNormEps)};
}
variable_list add_layer(const variable_list& in) {
  const auto [sum, y] = add_layer_norm(in[0], in[1], in[2], in[3], kNormEps);
  return {sum, y};
}
variable_list add_layer_plain(const variable_list& in) {
  const at::Tensor sum = in[0] + in[1];
  return {sum, layer_norm_reference(sum, in[2], in[3], kNormEps)};
}

TEST(Norms, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const auto& shape : kNormShapes) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    const std::int64_t n = shape.back();
    const at::Tensor x = normal(shape, 1, 1.5, 0.3), residual = normal(shape, 2);
    const at::Tensor weight = normal({n}, 3, 0.5, 1), bias = normal({n}, 4);
    expect_matches(rms, rms_plain, {x, weight});
    expect_matches(layer, layer_plain, {x, weight, bias});
    expect_matches(add_rms, add_rms_plain, {x, residual, weight});
    expect_matches(add_layer, add_layer_plain, {x, residual, weight, bias});
  }
}

TEST(Norms, ReferencesAgreeWithTorch) {
  const at::Tensor x = normal({5, 24}, 1), weight = normal({24}, 2), bias = normal({24}, 3);
  EXPECT_LT(error_of(rms_norm_reference(x, weight, kNormEps), at::rms_norm(x, {24}, weight, kNormEps)), 1e-14);
  EXPECT_LT(error_of(layer_norm_reference(x, weight, bias, kNormEps), at::layer_norm(x, {24}, weight, bias, kNormEps)),
            1e-14);
}

TEST(Norms, OtherTypesTakeTheReference) {
  const at::Tensor x = normal({5, 24}, 1), weight = normal({24}, 2), bias = normal({24}, 3);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, kNormEps), rms_norm_reference(x, weight, kNormEps)));
  EXPECT_TRUE(at::equal(layer_norm(x, weight, bias, kNormEps), layer_norm_reference(x, weight, bias, kNormEps)));
  EXPECT_TRUE(at::equal(add_rms_norm(x, x, weight, kNormEps).second, rms_norm_reference(x + x, weight, kNormEps)));
  EXPECT_TRUE(at::equal(add_layer_norm(x, x, weight, bias, kNormEps).second,
                        layer_norm_reference(x + x, weight, bias, kNormEps)));
}

TEST(Norms, StridedInputsAndWeightsGiveTheSameResults) {
  const at::Tensor x = normal({20, 7, 3}, 1), weight = normal({20, 2}, 2), bias = normal({20, 3}, 3);
  const auto strided = [](const at::Tensor& t) { return t.permute({2, 1, 0}); };
  const auto op = [&](const variable_list& in) -> variable_list {
    const at::Tensor w = in[1].select(1, 1), b = in[2].select(1, 0);
    const auto a = add_layer_norm(strided(in[0]), strided(in[0]).flip(0), w, b, kNormEps);
    return {rms_norm(strided(in[0]), w, kNormEps), layer_norm(strided(in[0]), w, b, kNormEps), a.first, a.second};
  };
  const auto plain = [&](const variable_list& in) -> variable_list {
    const at::Tensor w = in[1].select(1, 1), b = in[2].select(1, 0), sum = strided(in[0]) + strided(in[0]).flip(0);
    return {rms_norm_reference(strided(in[0]), w, kNormEps), layer_norm_reference(strided(in[0]), w, b, kNormEps), sum,
            layer_norm_reference(sum, w, b, kNormEps)};
  };
  expect_matches(op, plain, {x, weight, bias});
}

// Rounding of an fp32 mean near 1e4 alone moves results by up to half a thousandth of a deviation.
TEST(Norms, LargeMeansDoNotCancelTheVariance) {
  const at::Tensor x = normal({64, 577}, 1, 3.0) + 16384.0, weight = normal({577}, 2), bias = normal({577}, 3);
  const at::Tensor exact = layer_norm_reference(x, weight, bias, kNormEps);
  const auto as_float = [](const at::Tensor& t) { return t.to(at::kFloat); };
  const double ours = error_of(layer_norm(as_float(x), as_float(weight), as_float(bias), kNormEps), exact);
  EXPECT_LT(ours, 5e-4);
  EXPECT_LT(ours, 2 * error_of(at::layer_norm(as_float(x), {577}, as_float(weight), as_float(bias), kNormEps), exact));
}

TEST(Norms, Bf16ParameterGradientsOfManyRowsAreSummedInFp32) {
  const at::Tensor x = normal({4096, 64}, 1), weight = normal({64}, 2, 0.5, 1), bias = normal({64}, 3);
  const variable_list weights = output_weights(layer_plain, {x, weight, bias});
  const Traced exact = run(layer_plain, {x, weight, bias}, at::kDouble, weights);
  const Traced ours = run(layer, {x, weight, bias}, at::kBFloat16, weights);
  const Traced eager =
      run([](const variable_list& in) { return variable_list{at::layer_norm(in[0], {64}, in[1], in[2], kNormEps)}; },
          {x, weight, bias}, at::kBFloat16, weights);
  for (const std::size_t parameter : {1, 2}) {
    EXPECT_LT(error_of(ours.gradients[parameter], exact.gradients[parameter]), 3e-3);
    EXPECT_LT(10 * error_of(ours.gradients[parameter], exact.gradients[parameter]),
              error_of(eager.gradients[parameter], exact.gradients[parameter]));
  }
}

TEST(Norms, RowsOfZerosAndEmptyTensors) {
  const at::Tensor weight = at::ones({16}), bias = at::full({16}, 0.5);
  const at::Tensor zeros = at::zeros({2, 16}).requires_grad_();
  EXPECT_TRUE(at::equal(rms_norm(zeros, weight, kNormEps), at::zeros({2, 16})));
  EXPECT_TRUE(at::equal(layer_norm(zeros, weight, bias, kNormEps), at::full({2, 16}, 0.5)));
  rms_norm(zeros, weight, kNormEps).sum().backward();
  EXPECT_TRUE(zeros.grad().isfinite().all().item<bool>());
  for (const at::Tensor& empty : {at::zeros({0, 16}), at::zeros({3, 0, 16})}) {
    const at::Tensor leaf = empty.clone().requires_grad_(), w = weight.clone().requires_grad_();
    layer_norm(leaf, w, bias, kNormEps).sum().backward();
    EXPECT_EQ(leaf.grad().sizes(), empty.sizes());
    EXPECT_TRUE(at::equal(w.grad(), at::zeros({16})));
    EXPECT_EQ(add_rms_norm(empty, empty, weight, kNormEps).second.sizes(), empty.sizes());
  }
  EXPECT_EQ(rms_norm(at::zeros({3, 0}), at::zeros({0}), kNormEps).numel(), 0);
}

TEST(Norms, NanAndInfinitySpreadAsInTheReference) {
  at::Tensor x = normal({4, 33}, 1);
  x[1][32] = NAN;
  x[2][0] = INFINITY;
  const at::Tensor weight = at::ones({33}), bias = at::zeros({33}), single = x.to(at::kFloat);
  const auto same = [](const at::Tensor& a, const at::Tensor& b) { return at::equal(a.isnan(), b.isnan()); };
  EXPECT_TRUE(same(rms_norm(single, weight, kNormEps), rms_norm_reference(single, weight, kNormEps)));
  EXPECT_TRUE(same(layer_norm(single, weight, bias, kNormEps), layer_norm_reference(single, weight, bias, kNormEps)));
  EXPECT_TRUE(layer_norm(single, weight, bias, kNormEps)[1].isnan().all().item<bool>());
}

TEST(Norms, FrozenInputsGetNoGradient) {
  const at::Tensor x = at::randn({3, 16}).requires_grad_(), weight = at::ones({16}), bias = at::zeros({16});
  (rms_norm(x, weight, kNormEps) + layer_norm(x, weight, bias, kNormEps)).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(weight.grad().defined() || bias.grad().defined());
  const at::Tensor trained = at::ones({16}).requires_grad_(), frozen = at::randn({3, 16});
  layer_norm(frozen, trained, bias, kNormEps).sum().backward();
  EXPECT_TRUE(trained.grad().defined());
  EXPECT_FALSE(frozen.grad().defined());
}

// Either of the two outputs may be unused.
TEST(Norms, ResidualVariantsAcceptOneUsedOutput) {
  const at::Tensor x = normal({4, 20}, 1), r = normal({4, 20}, 2), w = normal({20}, 3), b = normal({20}, 4);
  for (const std::size_t used : {0, 1}) {
    const auto only = [used](const Op& op) {
      return [op, used](const variable_list& in) {
        // The weights join with a factor of zero, so that each input has a gradient.
        return variable_list{op(in)[used] + (in.size() > 3 ? in[2] + in[3] : in[2]) * 0.0};
      };
    };
    expect_matches(only(add_rms), only(add_rms_plain), {x, r, w});
    expect_matches(only(add_layer), only(add_layer_plain), {x, r, w, b});
  }
}

TEST(Norms, WithoutGradientModeNothingIsKept) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::randn({3, 16}).requires_grad_(), weight = at::ones({16}).requires_grad_(),
                   bias = at::zeros({16});
  const auto before = x.storage().use_count();
  const auto [sum, y] = add_layer_norm(x, x, weight, bias, kNormEps);
  const at::Tensor other = rms_norm(x, weight, kNormEps);
  EXPECT_EQ(x.storage().use_count(), before);
  EXPECT_FALSE(sum.requires_grad() || y.requires_grad() || other.requires_grad());
}

TEST(Norms, ParameterGradientsGoToTheirSlots) {
  const at::Tensor x = normal({6, 32}, 1).to(at::kBFloat16);
  const at::Tensor weight = normal({32}, 2).to(at::kBFloat16).requires_grad_(),
                   bias = normal({32}, 3).to(at::kBFloat16).requires_grad_();
  Sinks sinks({weight, bias});
  at::Tensor exact_weight, exact_bias;
  {
    const at::Tensor w = weight.detach().to(at::kDouble).requires_grad_(),
                     b = bias.detach().to(at::kDouble).requires_grad_();
    for (int i = 0; i < 2; ++i)
      layer_norm_reference(x.to(at::kDouble).narrow(0, 3 * i, 3), w, b, kNormEps).square().sum().backward();
    exact_weight = w.grad(), exact_bias = b.grad();
  }
  const tensor::GradientSinks::Guard guard(sinks.registry());
  for (int i = 0; i < 2; ++i)
    layer_norm(x.narrow(0, 3 * i, 3), weight, bias, kNormEps).to(at::kFloat).square().sum().backward();
  EXPECT_FALSE(weight.grad().defined() || bias.grad().defined());
  EXPECT_LT(error_of(sinks[0], exact_weight), 0x1p-7);
  EXPECT_LT(error_of(sinks[1], exact_bias), 0x1p-7);
}

TEST(Norms, MessagesNameWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 16}), w = at::zeros({16}), half = w.to(at::kBFloat16);
  EXPECT_MESSAGE(rms_norm(x, at::zeros({8}), kNormEps), "rms_norm: weight [8] does not fit input [2, 16]");
  EXPECT_MESSAGE(rms_norm(x, half, kNormEps), "rms_norm: input is Float, weight is BFloat16");
  EXPECT_MESSAGE(layer_norm(x, w, at::zeros({1, 16}), kNormEps), "layer_norm: weight [16] and bias [1, 16] do not fit");
  EXPECT_MESSAGE(layer_norm(x, w, half, kNormEps), "bias is BFloat16");
  EXPECT_MESSAGE(add_rms_norm(x, at::zeros({16}), w, kNormEps),
                 "add_rms_norm: input Float [2, 16] and residual Float [16]");
  EXPECT_MESSAGE(add_layer_norm(x, x.to(at::kBFloat16), w, w, kNormEps), "residual BFloat16 [2, 16] differ");
}

}  // namespace
}  // namespace gantry::kernels
