// In-place layer and RMS norm against the plain norms in fp64, and what they keep.
#include "gantry/kernels/inplace_norm/inplace_norm.h"

#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/norm_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

variable_list layer_inplace(const variable_list& in) { return {layer_norm_inplace(in[0], in[1], in[2], kNormEps)}; }
variable_list layer_eager(const variable_list& in) {
  return {at::layer_norm(in[0], {in[0].size(-1)}, in[1], in[2], kNormEps)};
}
variable_list rms_inplace(const variable_list& in) { return {rms_norm_inplace(in[0], in[1], kNormEps)}; }

// Weights away from zero, a bias within their size: every column is inverted.
variable_list ordinary(std::int64_t rows, std::int64_t n) {
  return {normal({rows, n}, 1, 1.5, 0.3), normal({n}, 2, 0.1, 1), normal({n}, 3, 0.5)};
}

// Weights and biases at random: the three ways of a column (inverted, beside, all kept) all occur. In bf16 the rounding
// of y, up to sqrt(1 + limit^2) times that of the normalised input, enters the weight's gradient.
TEST(InplaceNorm, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const auto& shape : kNormShapes) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    const std::int64_t n = shape.back();
    const at::Tensor x = normal(shape, 1, 1.5, 0.3), weight = normal({n}, 3, 0.5, 1);
    for (const double deviation : {0.0, 0.2, 1.0, 8.0}) {
      expect_matches(layer_inplace, layer_plain, {x, weight, normal({n}, 4, deviation)}, 3);
    }
    expect_matches(rms_inplace, rms_plain, {x, weight});
  }
}

// Every column at the largest ratio that is still inverted.
TEST(InplaceNorm, Fp32GradientsHoldAtTheSwitch) {
  constexpr std::int64_t kN = 256;
  const at::Tensor x = normal({512, kN}, 1), weight = normal({kN}, 2, 0.1, 0.25);
  const at::Tensor sign = at::where(normal({kN}, 3) > 0, at::ones({}, at::kDouble), -at::ones({}, at::kDouble));
  const variable_list inputs{x, weight, weight.abs() * sign * inversion_limit(at::kFloat)};
  const variable_list weights = output_weights(layer_plain, inputs);
  const Traced exact = run(layer_plain, inputs, at::kDouble, weights),
               ours = run(layer_inplace, inputs, at::kFloat, weights);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(error_of(ours.gradients[i], exact.gradients[i]), 1e-5) << i;
}

TEST(InplaceNorm, Bf16IsNoWorseThanEagerAndTenTimesBetterInParameterGradients) {
  const variable_list inputs{normal({4096, 64}, 1), normal({64}, 2, 0.1, 1), normal({64}, 3, 0.5)};
  const variable_list weights = output_weights(layer_plain, inputs);
  const Traced exact = run(layer_plain, inputs, at::kDouble, weights),
               ours = run(layer_inplace, inputs, at::kBFloat16, weights),
               eager = run(layer_eager, inputs, at::kBFloat16, weights);
  EXPECT_LE(error_of(ours.outputs[0], exact.outputs[0]), 1.5 * error_of(eager.outputs[0], exact.outputs[0]));
  EXPECT_LE(error_of(ours.gradients[0], exact.gradients[0]), 1.5 * error_of(eager.gradients[0], exact.gradients[0]));
  for (const std::size_t parameter : {1, 2}) {
    EXPECT_LE(10 * error_of(ours.gradients[parameter], exact.gradients[parameter]),
              error_of(eager.gradients[parameter], exact.gradients[parameter]));
  }
}

TEST(InplaceNorm, Fp16IsNoWorseThanEager) {
  const variable_list inputs = ordinary(300, 96), weights = output_weights(layer_plain, inputs);
  const Traced exact = run(layer_plain, inputs, at::kDouble, weights),
               ours = run(layer_inplace, inputs, at::kHalf, weights),
               eager = run(layer_eager, inputs, at::kHalf, weights);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_LE(error_of(ours.gradients[i], exact.gradients[i]),
              std::max(1.5 * error_of(eager.gradients[i], exact.gradients[i]), 0x1p-11));
  }
}

// Some weights zero, some tiny, some far below their bias; few enough to be kept beside, then most of them.
TEST(InplaceNorm, ColumnsThatCannotBeInvertedAreRight) {
  for (const std::int64_t bad : {4, 60}) {
    variable_list inputs = ordinary(50, 64);
    for (std::int64_t i = 0; i < bad; ++i) {
      inputs[1][i] = i % 4 == 0 ? 0.0 : i % 4 == 1 ? -0x1p-120 : i % 4 == 2 ? 0x1p-12 : -0x1p-6;
      inputs[2][i] = i % 8 < 4 ? 96.0 : -3.0;
    }
    const auto zero_and_plain = [](const Op& op) {
      return [op](const variable_list& in) { return op({in[0], in[1], in[2]}); };
    };
    expect_matches(zero_and_plain(layer_inplace), zero_and_plain(layer_plain), inputs);
    expect_matches(rms_inplace, rms_plain, {inputs[0], inputs[1]});
    // Each column of the weight's gradient by itself: a norm over all would hide a lost one.
    const variable_list weights = output_weights(layer_plain, inputs);
    const at::Tensor exact = run(layer_plain, inputs, at::kDouble, weights).gradients[1];
    const at::Tensor ours = run(layer_inplace, inputs, at::kFloat, weights).gradients[1].to(at::kDouble);
    EXPECT_LT(((ours - exact).abs() / exact.norm()).max().item<double>(), 1e-6);
  }
}

TEST(InplaceNorm, Fp64GradientsAgreeWithFiniteDifferences) {
  variable_list inputs = ordinary(3, 17);
  inputs[1][2] = 0.0;
  inputs[1][5] = 1e-8;
  const variable_list weights = output_weights(layer_plain, inputs);
  const auto loss = [&](const variable_list& in, const Op& op) {
    return (op(in)[0] * weights[0]).sum().item<double>();
  };
  for (const auto& [op, count] : {std::pair<Op, std::size_t>{layer_inplace, 3}, {rms_inplace, 2}}) {
    const variable_list used(inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(count));
    const Traced ours = run(op, used, at::kDouble, weights);
    for (std::size_t k = 0; k < count; ++k) {
      at::Tensor numeric = at::zeros_like(used[k]);
      for (std::int64_t i = 0; i < numeric.numel(); ++i) {
        variable_list plus = used, minus = used;
        plus[k] = used[k].clone(), minus[k] = used[k].clone();
        plus[k].view(-1)[i] += 1e-6, minus[k].view(-1)[i] -= 1e-6;
        numeric.view(-1)[i] = (loss(plus, op) - loss(minus, op)) / 2e-6;
      }
      EXPECT_LT(error_of(ours.gradients[k], numeric), 1e-7) << k;
    }
  }
}

// y itself, four bytes a row, and the side columns in use.
TEST(InplaceNorm, KeepsItsOutputAndFourBytesARow) {
  constexpr std::int64_t kRowCount = 40, kN = 64;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const std::int64_t width = type == at::kFloat ? 4 : 2, full = kRowCount * kN * width, rows = kRowCount * 4;
    for (const auto& [zeros, kept] :
         {std::pair<std::int64_t, std::int64_t>{0, rows}, {3, rows + 3 * kRowCount * width}, {20, rows + full}}) {
      const variable_list in = ordinary(kRowCount, kN);
      const at::Tensor x = in[0].to(type).requires_grad_(), w = in[1].to(type), b = in[2].to(type);
      w.narrow(0, 0, zeros).zero_();
      w.requires_grad_(), b.requires_grad_();
      const tensor::LiveBytes live;
      const at::Tensor y = layer_norm_inplace(x, w, b, kNormEps);
      EXPECT_EQ(live.now(), full + kept);
      const at::Tensor z = rms_norm_inplace(x, w, kNormEps);
      EXPECT_EQ(live.now(), 2 * (full + kept));
    }
  }
}

TEST(InplaceNorm, WithoutGradientsNothingIsKept) {
  const variable_list in = ordinary(8, 16);
  const at::Tensor x = in[0].to(at::kFloat), w = in[1].to(at::kFloat).requires_grad_(), b = in[2].to(at::kFloat);
  const at::Tensor trained = layer_norm_inplace(x, w, b, kNormEps);
  const at::NoGradGuard no_grad;
  const tensor::LiveBytes live;
  const at::Tensor y = layer_norm_inplace(x, w, b, kNormEps);
  EXPECT_EQ(live.now(), 8 * 16 * 4);
  EXPECT_FALSE(y.requires_grad());
  EXPECT_TRUE(at::equal(y, trained));
}

TEST(InplaceNorm, ARetainedGraphGivesTheSameGradientsTwice) {
  for (const double bad : {1.0, 0.0}) {
    const variable_list in = ordinary(30, 40);
    const at::Tensor x = in[0].to(at::kFloat).requires_grad_(), w = in[1].to(at::kFloat), b = in[2].to(at::kFloat);
    w[7] *= bad;
    w.requires_grad_(), b.requires_grad_();
    const at::Tensor loss = layer_norm_inplace(x, w, b, kNormEps).square().sum();
    const auto first = torch::autograd::grad({loss}, {x, w, b}, {}, true);
    const auto second = torch::autograd::grad({loss}, {x, w, b});
    for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
  }
}

TEST(InplaceNorm, WeightsOrOutputsChangedBeforeBackwardAreRefused) {
  for (const int changed : {0, 1, 2}) {
    const variable_list in = ordinary(4, 16);
    const at::Tensor x = in[0].to(at::kFloat).requires_grad_(), w = in[1].to(at::kFloat).requires_grad_(),
                     b = in[2].to(at::kFloat).requires_grad_();
    at::Tensor y = layer_norm_inplace(x, w, b, kNormEps);
    const at::Tensor loss = y.sum();
    {
      const at::NoGradGuard no_grad;
      (changed == 0 ? w : changed == 1 ? b : y).add_(1);
    }
    EXPECT_NE(error_text([&] { loss.backward(); }).find("modified by an inplace operation"), std::string::npos);
  }
}

TEST(InplaceNorm, SecondDerivativesAreRefusedAndFirstOnesUnderCreateGraphAreNot) {
  const variable_list in = ordinary(4, 16);
  const at::Tensor x = in[0].to(at::kFloat).requires_grad_(), w = in[1].to(at::kFloat), b = in[2].to(at::kFloat);
  const at::Tensor loss = layer_norm_inplace(x, w, b, kNormEps).square().sum();
  const at::Tensor plain = torch::autograd::grad({loss}, {x}, {}, true)[0];
  const at::Tensor first = torch::autograd::grad({loss}, {x}, {}, true, true)[0];
  EXPECT_TRUE(at::equal(first, plain));
  EXPECT_NE(error_text([&] { first.sum().backward(); }).find("in-place norm: second derivatives"), std::string::npos);
}

TEST(InplaceNorm, StridedAndExpandedInputsGiveTheSameResults) {
  const at::Tensor x = normal({20, 7, 3}, 1), weight = normal({20, 2}, 2, 0.1, 1), bias = normal({20, 3}, 3);
  const auto through = [](const auto& norm) {
    return [norm](const variable_list& in) -> variable_list {
      const at::Tensor view = in[0].permute({2, 1, 0}), w = in[1].select(1, 1), b = in[2].select(1, 0);
      return {norm(view, w, b), norm(view.select(0, 1).unsqueeze(0).expand({4, 7, 20}), w, b)};
    };
  };
  expect_matches(
      through([](const auto& a, const auto& w, const auto& b) { return layer_norm_inplace(a, w, b, kNormEps); }),
      through([](const auto& a, const auto& w, const auto& b) { return layer_norm_reference(a, w, b, kNormEps); }),
      {x, weight, bias});
}

TEST(InplaceNorm, NanAndInfinitySpreadAsInTheReference) {
  const auto same = [](const at::Tensor& a, const at::Tensor& b) { return at::equal(a.isnan(), b.isnan()); };
  for (const std::size_t input : {0, 1, 2}) {
    for (const double value : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      variable_list in = ordinary(4, 33);
      in[input].view(-1)[5] = value;
      const variable_list weights{at::ones({4, 33}, at::kDouble)};
      const Traced exact = run(layer_plain, in, at::kDouble, weights),
                   ours = run(layer_inplace, in, at::kFloat, weights);
      EXPECT_TRUE(same(ours.outputs[0], exact.outputs[0])) << input << " " << value;
      for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_TRUE(same(ours.gradients[i], exact.gradients[i])) << input << " " << value << " " << i;
      }
    }
  }
}

TEST(InplaceNorm, TypesOfParametersMayDifferAndParametersMayBeLeftOut) {
  const variable_list in = ordinary(20, 48);
  const at::Tensor x = in[0].to(at::kBFloat16).requires_grad_(), w = in[1].to(at::kFloat).requires_grad_(),
                   b = in[2].to(at::kFloat).requires_grad_();
  const at::Tensor y = layer_norm_inplace(x, w, b, kNormEps);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(error_of(y.detach(), layer_plain(in)[0]), 0x1p-8);
  y.sum().backward();
  EXPECT_EQ(w.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(x.grad().scalar_type(), at::kBFloat16);

  const at::Tensor ones = at::ones({48}, at::kDouble), zeros = at::zeros({48}, at::kDouble);
  expect_matches(
      [](const variable_list& v) { return variable_list{layer_norm_inplace(v[0], {}, {}, kNormEps)}; },
      [&](const variable_list& v) {
        return variable_list{layer_norm_reference(v[0], ones.to(v[0].dtype()), zeros.to(v[0].dtype()), kNormEps)};
      },
      {in[0]});
  expect_matches(
      [](const variable_list& v) { return variable_list{rms_norm_inplace(v[0], {}, kNormEps)}; },
      [&](const variable_list& v) { return variable_list{rms_norm_reference(v[0], ones.to(v[0].dtype()), kNormEps)}; },
      {in[0]});
}

TEST(InplaceNorm, EmptyTensorsAndFrozenInputs) {
  const at::Tensor w = at::ones({16}).requires_grad_(), b = at::zeros({16});
  for (const at::Tensor& empty : {at::zeros({0, 16}), at::zeros({3, 0, 16})}) {
    const at::Tensor leaf = empty.clone().requires_grad_();
    layer_norm_inplace(leaf, w, b, kNormEps).sum().backward();
    EXPECT_EQ(leaf.grad().sizes(), empty.sizes());
    EXPECT_TRUE(at::equal(w.grad(), at::zeros({16})));
  }
  EXPECT_EQ(layer_norm_inplace(at::zeros({3, 0}), at::zeros({0}), at::zeros({0}), kNormEps).numel(), 0);
  const at::Tensor frozen = at::randn({3, 16});
  layer_norm_inplace(frozen, w, b, kNormEps).square().sum().backward();
  EXPECT_FALSE(frozen.grad().defined() || b.grad().defined());
  EXPECT_GT(w.grad().norm().item<double>(), 0);
}

TEST(InplaceNorm, ParameterGradientsGoToTheirSlots) {
  const variable_list in = ordinary(6, 32);
  const at::Tensor x = in[0].to(at::kFloat), w = in[1].to(at::kFloat).requires_grad_(),
                   b = in[2].to(at::kFloat).requires_grad_();
  const variable_list weights{at::ones({6, 32}, at::kDouble)};
  const Traced exact = run(layer_plain, in, at::kDouble, weights);
  Sinks sinks({w, b});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  layer_norm_inplace(x, w, b, kNormEps).sum().backward();
  EXPECT_FALSE(w.grad().defined() || b.grad().defined());
  EXPECT_LT(error_of(sinks[0], exact.gradients[1]), 1e-5);
  EXPECT_LT(error_of(sinks[1], exact.gradients[2]), 1e-5);
}

// ---- NormKeep::kOutputAlone

constexpr auto kAlone = NormKeep::kOutputAlone;

variable_list layer_alone(const variable_list& in) {
  return {layer_norm_inplace(in[0], in[1], in[2], kNormEps, kAlone)};
}
variable_list rms_alone(const variable_list& in) { return {rms_norm_inplace(in[0], in[1], kNormEps, kAlone)}; }

// Biases from none to too large for most columns: with and without 32 neighbours that can carry.
TEST(InplaceNormAlone, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const auto& shape : kNormShapes) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    const std::int64_t n = shape.back();
    const at::Tensor x = normal(shape, 1, 1.5, 0.3), weight = normal({n}, 3, 0.5, 1);
    for (const double deviation : {0.0, 0.2, 1.0, 8.0}) {
      expect_matches(layer_alone, layer_plain, {x, weight, normal({n}, 4, deviation)}, 3);
    }
    expect_matches(rms_alone, rms_plain, {x, weight});
  }
}

TEST(InplaceNormAlone, MovesThirtyTwoColumnsByAnUlp) {
  for (const std::int64_t bad : {0, 40}) {  // column `bad - 1` cannot carry
    variable_list in = ordinary(300, 96);
    for (at::Tensor& x : in) x = x.to(at::kFloat);
    if (bad != 0) in[1][bad - 1] = 0.0;
    const at::Tensor plain = layer_norm_inplace(in[0], in[1], in[2], kNormEps);
    const at::Tensor carrying = layer_norm_inplace(in[0].requires_grad_(), in[1], in[2], kNormEps, kAlone).detach();
    const auto bits = [](const at::Tensor& x) { return x.view(at::kInt).to(at::kLong); };
    const at::Tensor moved = (bits(plain) - bits(carrying)).abs().amax(0);
    at::Tensor expected = at::zeros({96}, at::kLong);
    expected.narrow(0, 0, 32).fill_(1);
    EXPECT_TRUE(at::equal(moved, expected)) << moved;
    if (bad == 0) continue;
    in[1][3] = 0.0;
    const at::Tensor behind = layer_norm_inplace(in[0], in[1], in[2], kNormEps, kAlone).detach();
    const at::Tensor other = layer_norm_inplace(in[0].detach(), in[1], in[2], kNormEps);
    expected.zero_().narrow(0, 4, 32).fill_(1);
    EXPECT_TRUE(at::equal((bits(other) - bits(behind)).abs().amax(0), expected));
  }
}

TEST(InplaceNormAlone, KeepsNothingBesideItsOutput) {
  struct Kept {
    at::ScalarType type;
    std::int64_t n, step, row_bytes;  ///< every step-th weight is zero; 0: none
    double bias;
  };
  for (const Kept& k :
       {Kept{at::kFloat, 64, 0, 0, 0.5}, Kept{at::kFloat, 32, 0, 0, 0.5}, Kept{at::kFloat, 31, 0, 4, 0.5},
        Kept{at::kBFloat16, 64, 0, 4, 0.5}, Kept{at::kFloat, 64, 40, 2 * 4, 0.5}, Kept{at::kFloat, 128, 40, 4 * 4, 0.5},
        Kept{at::kFloat, 128, 17, 8 * 4 + 4, 0.5}, Kept{at::kFloat, 128, 3, 4 + 128 * 4, 0.5},
        Kept{at::kFloat, 64, 0, 4, 60.0}}) {
    SCOPED_TRACE(::testing::Message() << c10::toString(k.type) << " " << k.n << ", step " << k.step << ", " << k.bias);
    at::Tensor w = at::ones({k.n}, k.type), b = at::full({k.n}, k.bias, k.type);
    for (std::int64_t i = 0; k.step != 0 && i < k.n; i += k.step) w[i] = 0.0;
    const at::Tensor x = normal({40, k.n}, 1).to(k.type).requires_grad_();
    EXPECT_EQ(kept_beside([&] { return layer_norm_inplace(x, w, b, kNormEps, kAlone); }), 40 * k.row_bytes);
  }
}

TEST(InplaceNormAlone, ConstantRowsOfZerosStayZerosAndGiveGradients) {
  variable_list in = ordinary(6, 64);
  in[0].narrow(0, 1, 3).zero_();
  in[2].zero_();
  for (const auto& [ours, exact, count] :
       {std::tuple<Op, Op, std::ptrdiff_t>{layer_alone, layer_plain, 3}, {rms_alone, rms_plain, 2}}) {
    const variable_list used(in.begin(), in.begin() + count);
    expect_matches(ours, exact, used);
    const at::Tensor y = run(ours, used, at::kFloat, output_weights(exact, used)).outputs[0];
    EXPECT_EQ(y.narrow(0, 1, 3).abs().max().item<double>(), 0.0);
  }
}

// Half of an RMS norm's input is zero, those that carry among it: no denormals in the output, and right gradients.
TEST(InplaceNormAlone, ZerosInCarryingColumnsBecomeNormalNumbers) {
  variable_list in = ordinary(6, 64);
  in[0].narrow(1, 0, 32).zero_();
  in.pop_back();
  expect_matches(rms_alone, rms_plain, in);
  const at::Tensor y = run(rms_alone, in, at::kFloat, output_weights(rms_plain, in)).outputs[0].narrow(1, 0, 32).abs();
  EXPECT_TRUE((y == 0).logical_or(y >= std::numeric_limits<float>::min()).all().item<bool>());
  EXPECT_LE(y.max().item<double>(), 1.2e-38);
  EXPECT_GT(y.max().item<double>(), 0.0) << "they carry";
}

TEST(InplaceNormAlone, NanAndInfinitySpreadAsInTheReference) {
  for (const std::size_t input : {0, 1, 2}) {
    for (const double value : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      for (const std::int64_t at : {5, 60}) {
        variable_list in = ordinary(4, 64);
        in[input].view(-1)[at] = value;
        const variable_list weights{at::ones({4, 64}, at::kDouble)};
        const Traced exact = run(layer_plain, in, at::kDouble, weights),
                     ours = run(layer_alone, in, at::kFloat, weights);
        SCOPED_TRACE(::testing::Message() << input << " " << value << " at " << at);
        EXPECT_TRUE(at::equal(ours.outputs[0].isnan(), exact.outputs[0].isnan()));
        for (std::size_t i = 0; i < 3; ++i) {
          EXPECT_TRUE(at::equal(ours.gradients[i].isnan(), exact.gradients[i].isnan())) << i;
        }
      }
    }
  }
}

TEST(InplaceNormAlone, WithoutGradientsNothingChanges) {
  const variable_list in = ordinary(8, 64);
  const at::Tensor x = in[0].to(at::kFloat), w = in[1].to(at::kFloat), b = in[2].to(at::kFloat);
  EXPECT_TRUE(at::equal(layer_norm_inplace(x, w, b, kNormEps, kAlone), layer_norm_inplace(x, w, b, kNormEps)));
}

TEST(InplaceNorm, MessagesNameWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 16}), w = at::zeros({16});
  EXPECT_MESSAGE(layer_norm_inplace(x, at::zeros({8}), w, kNormEps),
                 "layer_norm_inplace: weight [8] does not fit input [2, 16]");
  EXPECT_MESSAGE(layer_norm_inplace(x, w, at::zeros({1, 16}), kNormEps), "bias [1, 16] does not fit");
  EXPECT_MESSAGE(rms_norm_inplace(x.to(at::kLong), w, kNormEps), "rms_norm_inplace: input is Long");
  EXPECT_MESSAGE(rms_norm_inplace(x, w.to(at::kLong), kNormEps), "weight is Long");
}

}  // namespace
}  // namespace gantry::kernels
