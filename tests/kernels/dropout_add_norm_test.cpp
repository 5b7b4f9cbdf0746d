// Dropout, residual and norm in one against the exported mask and torch's derivative of ATen operators.
#include "gantry/kernels/dropout/dropout.h"
#include "gantry/kernels/inplace_norm/inplace_norm.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

using Fused = decltype(&dropout_add_norm);

DropoutAddNormOptions residual_options(NormKind norm, double p, bool return_sum) {
  return {.norm = norm, .dropout = {.seed = 9, .threshold = dropout_threshold(p)}, .return_sum = return_sum};
}

// Inputs: x, residual, weight, and for a layer norm the bias.
Op as_op(Fused fused, const DropoutAddNormOptions& options) {
  return [fused, options](const variable_list& in) -> variable_list {
    const auto [sum, y] = fused(in[0], in[1], in[2], in.size() > 3 ? in[3] : at::Tensor(), options);
    if (sum.defined()) return {y, sum};
    return {y};
  };
}

variable_list residual_inputs(std::vector<std::int64_t> shape, NormKind norm) {
  const std::int64_t n = shape.back();
  variable_list inputs{normal(shape, 1), normal(shape, 2, 1, 0.5), normal({n}, 3, 0.1, 1)};
  if (norm == NormKind::kLayer) inputs.push_back(normal({n}, 4, 0.5));
  return inputs;
}

TEST(DropoutAddNorm, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{4, 1, 33}, {1, 64}, {577}, {3, 40, 100}}) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    for (const auto norm : {NormKind::kLayer, NormKind::kRms}) {
      for (const double p : {0.0, 0.1, 1.0}) {
        for (const bool return_sum : {false, true}) {
          SCOPED_TRACE(p);
          const auto options = residual_options(norm, p, return_sum);
          expect_matches(as_op(dropout_add_norm, options), as_op(dropout_add_norm_reference, options),
                         residual_inputs(shape, norm));
        }
      }
    }
  }
}

TEST(DropoutAddNorm, ColumnsThatCannotBeInvertedAreRight) {
  for (const std::int64_t bad : {5, 50}) {
    variable_list inputs = residual_inputs({20, 64}, NormKind::kLayer);
    inputs[2].narrow(0, 3, bad).zero_();
    for (const bool return_sum : {false, true}) {
      const auto options = residual_options(NormKind::kLayer, 0.3, return_sum);
      expect_matches(as_op(dropout_add_norm, options), as_op(dropout_add_norm_reference, options), inputs);
    }
  }
}

// The mask is fixed by the rule, so that a difference quotient sees a smooth function.
TEST(DropoutAddNorm, Fp64GradientsAgreeWithFiniteDifferences) {
  const variable_list inputs = residual_inputs({3, 17}, NormKind::kLayer);
  const Op op = as_op(dropout_add_norm, residual_options(NormKind::kLayer, 0.2, true));
  const variable_list weights = output_weights(op, inputs);
  const auto loss = [&](const variable_list& in) {
    const auto out = op(in);
    return ((out[0] * weights[0]).sum() + (out[1] * weights[1]).sum()).item<double>();
  };
  const Traced ours = run(op, inputs, at::kDouble, weights);
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    at::Tensor numeric = at::zeros_like(inputs[k]);
    for (std::int64_t i = 0; i < numeric.numel(); ++i) {
      variable_list plus = inputs, minus = inputs;
      plus[k] = inputs[k].clone(), minus[k] = inputs[k].clone();
      plus[k].view(-1)[i] += 1e-6, minus[k].view(-1)[i] -= 1e-6;
      numeric.view(-1)[i] = (loss(plus) - loss(minus)) / 2e-6;
    }
    EXPECT_LT(error_of(ours.gradients[k], numeric), 1e-7) << k;
  }
}

// Rows of 33 elements begin inside a block of eight draws.
TEST(DropoutAddNorm, ForwardAndBackwardDrawTheExportedMaskForEveryThreadCount) {
  const auto options = residual_options(NormKind::kLayer, 0.4, true);
  for (const std::int64_t n : {33, 64}) {
    const at::Tensor keep = dropout_keep_mask({501, n}, options.dropout);
    for (const int threads : {1, 2, 3, 7}) {
      const int before = at::get_num_threads();
      at::set_num_threads(threads);
      const at::Tensor x = at::ones({501, n}).requires_grad_(), residual = at::zeros({501, n}), weight = at::ones({n});
      const at::Tensor sum = dropout_add_norm(x, residual, weight, {}, options).first;
      sum.sum().backward();
      at::set_num_threads(before);
      EXPECT_TRUE(at::equal(sum != 0, keep)) << threads;
      EXPECT_TRUE(at::equal(x.grad() != 0, keep)) << threads;
    }
  }
}

TEST(DropoutAddNorm, KeepsFourBytesARow) {
  const variable_list in = residual_inputs({40, 64}, NormKind::kLayer);
  const at::Tensor x = in[0].to(at::kFloat).requires_grad_(), residual = in[1].to(at::kFloat).requires_grad_(),
                   weight = in[2].to(at::kFloat), bias = in[3].to(at::kFloat);
  for (const bool return_sum : {false, true}) {
    const tensor::LiveBytes live;
    const auto result =
        dropout_add_norm(x, residual, weight, bias, residual_options(NormKind::kLayer, 0.1, return_sum));
    EXPECT_EQ(live.now(), (return_sum ? 2 : 1) * 40 * 64 * 4 + 40 * 4);
  }
}

// The sum is what it was; the norm's values carry.
TEST(DropoutAddNorm, KeepsNothingWhereTheOutputCarriesTheDeviation) {
  for (const auto norm : {NormKind::kLayer, NormKind::kRms}) {
    const variable_list in = residual_inputs({40, 64}, norm);
    for (const bool return_sum : {false, true}) {
      const auto plain = residual_options(norm, 0.1, return_sum);
      DropoutAddNormOptions alone = plain;
      alone.keep = NormKeep::kOutputAlone;
      expect_matches(as_op(dropout_add_norm, alone), as_op(dropout_add_norm_reference, plain), in);
      variable_list single = leaves_of(in, at::kFloat);
      const Op op = as_op(dropout_add_norm, alone);
      const tensor::LiveBytes live;
      const variable_list got = op(single);
      EXPECT_EQ(live.now(), (return_sum ? 2 : 1) * 40 * 64 * 4);
      const variable_list expected = as_op(dropout_add_norm, plain)(single);
      EXPECT_FALSE(at::equal(got[0], expected[0])) << "it was not in force";
      EXPECT_LT(error_of(got[0].detach(), expected[0].detach().to(at::kDouble)), 0x1p-23);
      if (return_sum) {
        EXPECT_TRUE(at::equal(got[1], expected[1]));
      }
    }
  }
}

TEST(DropoutAddNorm, EitherOutputMayBeUnused) {
  const auto options = residual_options(NormKind::kRms, 0.3, true);
  for (const std::size_t used : {0, 1}) {
    const auto only = [used](const Op& op) {
      return [op, used](const variable_list& in) { return variable_list{op(in)[used] + in[2] * 0.0}; };
    };
    expect_matches(only(as_op(dropout_add_norm, options)), only(as_op(dropout_add_norm_reference, options)),
                   residual_inputs({12, 40}, NormKind::kRms));
  }
}

TEST(DropoutAddNorm, StridedInputsAndFrozenOnes) {
  const auto options = residual_options(NormKind::kLayer, 0.25, false);
  const auto strided = [](const Op& op) {
    return [op](const variable_list& in) { return op({in[0].t(), in[1].flip(0), in[2], in[3]}); };
  };
  variable_list inputs = residual_inputs({24, 40}, NormKind::kLayer);
  inputs[0] = normal({40, 24}, 5);
  expect_matches(strided(as_op(dropout_add_norm, options)), strided(as_op(dropout_add_norm_reference, options)),
                 inputs);
  const at::Tensor x = at::randn({3, 16}), residual = at::randn({3, 16}).requires_grad_(), w = at::ones({16});
  dropout_add_norm(x, residual, w, {}, options).second.square().sum().backward();
  EXPECT_TRUE(residual.grad().defined());
  EXPECT_FALSE(x.grad().defined() || w.grad().defined());
}

TEST(DropoutAddNorm, NanAndInfinitySpreadAsInTheReference) {
  const auto options = residual_options(NormKind::kLayer, 0.3, true);
  for (const std::size_t input : {0, 1, 2, 3}) {
    for (const double value : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      variable_list in = residual_inputs({4, 33}, NormKind::kLayer);
      in[input].view(-1)[5] = value;
      const variable_list weights{at::ones({4, 33}, at::kDouble), at::ones({4, 33}, at::kDouble)};
      const Traced exact = run(as_op(dropout_add_norm_reference, options), in, at::kDouble, weights);
      const Traced ours = run(as_op(dropout_add_norm, options), in, at::kFloat, weights);
      for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(ours.outputs[i].isnan(), exact.outputs[i].isnan()));
      for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(ours.gradients[i].isnan(), exact.gradients[i].isnan()));
    }
  }
}

TEST(DropoutAddNorm, MessagesNameWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 16}), w = at::zeros({16});
  EXPECT_MESSAGE(dropout_add_norm(x, at::zeros({16}), w, {}, {}),
                 "dropout_add_norm: input Float [2, 16] and residual Float [16] differ");
  EXPECT_MESSAGE(dropout_add_norm(x, x, w, w, {.norm = NormKind::kRms}), "an RMS norm takes no bias");
}

}  // namespace
}  // namespace gantry::kernels
