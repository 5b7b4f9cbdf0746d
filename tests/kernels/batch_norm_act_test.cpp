// In-place batch norm with a leaky ReLU against torch's operators in fp64.
#include "gantry/kernels/batch_norm_act/batch_norm_act.h"

#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Statistics {
  at::Tensor mean, variance;
  explicit Statistics(std::int64_t channels)
      : mean(normal({channels}, 21, 0.3)), variance(normal({channels}, 22, 0.3).abs() + 0.5) {}
  Statistics copy(at::ScalarType type) const {
    Statistics result(1);
    result.mean = mean.to(type, false, true), result.variance = variance.to(type, false, true);
    return result;
  }
};

// x, weight, bias in; the running statistics are copied, so that every run starts from the same.
Op batch_norm_op(const BatchNormActOptions& options, const Statistics& start) {
  return [=](const variable_list& in) -> variable_list {
    const Statistics s = start.copy(in[1].scalar_type());
    return {batch_norm_act(in[0], in[1], in[2], s.mean, s.variance, options)};
  };
}

Op plain_batch_norm(const BatchNormActOptions& options, const Statistics& start) {
  return [=](const variable_list& in) -> variable_list {
    const Statistics s = start.copy(in[1].scalar_type());
    return {at::leaky_relu(
        at::batch_norm(in[0], in[1], in[2], s.mean, s.variance, options.training, options.momentum, options.eps, false),
        options.negative_slope)};
  };
}

variable_list batch_norm_inputs(std::vector<std::int64_t> shape) {
  const std::int64_t channels = shape[1];
  variable_list in{normal(shape, 1, 1.5, 0.3), normal({channels}, 2, 0.1, 1), normal({channels}, 3, 0.4)};
  in[1][0] *= -1;  // the sign of a weight matters
  return in;
}

TEST(BatchNormAct, ValuesAndGradientsMatchTorchInFp64) {
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{30, 16}, {4, 24, 7}, {3, 16, 5, 6}}) {
    for (const bool training : {true, false}) {
      for (const double slope : {0.01, 0.5, 1.0}) {
        SCOPED_TRACE(::testing::PrintToString(shape));
        const BatchNormActOptions options{.training = training, .negative_slope = slope};
        const Statistics start(shape[1]);
        expect_matches(batch_norm_op(options, start), plain_batch_norm(options, start), batch_norm_inputs(shape), 3);
      }
    }
  }
}

TEST(BatchNormAct, ChannelsThatCannotBeInvertedAreRight) {
  const BatchNormActOptions options;
  const Statistics start(16);
  for (const std::int64_t bad : {2, 9}) {
    variable_list in = batch_norm_inputs({20, 16, 5});
    for (std::int64_t i = 0; i < bad; ++i) in[1][i] = i % 2 == 0 ? 0.0 : 1e-4;
    expect_matches(batch_norm_op(options, start), plain_batch_norm(options, start), in, 3);
  }
}

TEST(BatchNormAct, RunningStatisticsMoveAsTorchsAndNotInEval) {
  const variable_list in = batch_norm_inputs({10, 8, 3});
  for (const bool training : {true, false}) {
    const Statistics start(8), batch_norm_op = start.copy(at::kDouble), theirs = start.copy(at::kDouble);
    batch_norm_act(in[0], in[1], in[2], batch_norm_op.mean, batch_norm_op.variance, {.training = training});
    at::batch_norm(in[0], in[1], in[2], theirs.mean, theirs.variance, training, 0.1, 1e-5, false);
    EXPECT_TRUE(at::equal(batch_norm_op.mean, theirs.mean) && at::equal(batch_norm_op.variance, theirs.variance));
    EXPECT_NE(at::equal(batch_norm_op.mean, start.mean), training);
  }
}

TEST(BatchNormAct, KeepsItsOutputAndFourBytesAChannel) {
  const variable_list in = batch_norm_inputs({10, 16, 6});
  const at::Tensor x = in[0].to(at::kFloat).requires_grad_(), b = in[2].to(at::kFloat);
  for (const std::int64_t zeros : {0, 2}) {
    const at::Tensor w = in[1].to(at::kFloat);
    w.narrow(0, 0, zeros).zero_();
    const tensor::LiveBytes live;
    const at::Tensor z = batch_norm_act(x, w, b, {}, {}, {});
    EXPECT_EQ(live.now(), 10 * 16 * 6 * 4 + 16 * 4 + zeros * 10 * 6 * 4);
  }
}

TEST(BatchNormAct, ChangedOutputsAndSecondDerivativesAreRefused) {
  const variable_list in = batch_norm_inputs({10, 8});
  const at::Tensor x = in[0].clone().requires_grad_();
  at::Tensor z = batch_norm_act(x, in[1], in[2], {}, {}, {});
  const at::Tensor first = torch::autograd::grad({z.square().sum()}, {x}, {}, true, true)[0];
  EXPECT_THROW(first.sum().backward({}, true), std::exception);
  const at::Tensor loss = z.sum();
  {
    const at::NoGradGuard no_grad;
    z.add_(1);
  }
  EXPECT_THROW(loss.backward(), c10::Error);
}

TEST(BatchNormAct, MessagesNameWhatIsWrong) {
  const at::Tensor x = at::zeros({4, 3}), w = at::zeros({3});
  EXPECT_MESSAGE(batch_norm_act(x, at::zeros({4}), w, {}, {}, {}), "weight [4] does not fit input [4, 3]");
  EXPECT_MESSAGE(batch_norm_act(x, w, w, {}, {}, {.negative_slope = 0}), "slope is 0");
  EXPECT_MESSAGE(batch_norm_act(x, w, w, {}, {}, {.training = false}), "needs a running mean");
  EXPECT_MESSAGE(batch_norm_act(x[0].unsqueeze(0), w, w, {}, {}, {}), "one value a channel");
}

}  // namespace
}  // namespace gantry::kernels
