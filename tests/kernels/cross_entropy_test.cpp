// The fused head and loss against torch's cross entropy in fp64.
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr std::int64_t kTokens = 70, kWidth = 24, kVocab = 131;

at::Tensor some_labels() {
  auto generator = at::detail::createCPUGenerator(5);
  at::Tensor labels = at::randint(kVocab, {2, kTokens / 2}, generator, at::kLong);
  labels[0][3] = -100;
  labels[1].slice(0, 20).fill_(-1);
  return labels;
}

// In fp64: torch's loss on explicit logits, normalised as asked.
Op plain(const at::Tensor& labels, double normalizer = 0) {
  return [=](const variable_list& in) -> variable_list {
    const at::Tensor bias = in.size() > 2 ? in[2] : at::Tensor();
    at::Tensor logits = at::matmul(in[0].reshape({-1, kWidth}), in[1].t());
    if (bias.defined()) logits = logits + bias;
    const auto wide = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor flat = labels.reshape({-1});
    const at::Tensor sum = at::cross_entropy_loss(logits.to(wide), flat.clamp_min(-100).masked_fill(flat.lt(0), -100),
                                                  {}, at::Reduction::Sum);
    return {sum / (normalizer != 0 ? normalizer : flat.ge(0).sum().item<double>())};
  };
}

Op fused(const at::Tensor& labels, const LinearCrossEntropyOptions& options = {}) {
  return [=](const variable_list& in) -> variable_list {
    return {linear_cross_entropy(in[0], in[1], in.size() > 2 ? in[2] : at::Tensor(), labels, options)};
  };
}

variable_list inputs(bool biased) {
  variable_list result{normal({2, kTokens / 2, kWidth}, 1), normal({kVocab, kWidth}, 2, 0.5)};
  if (biased) result.push_back(normal({kVocab}, 3));
  return result;
}

// One chunk, and chunks of 16 rows (70 = 4 * 16 + 6).
const std::vector<std::int64_t> kChunkBytes{std::int64_t{1} << 20, 1};

TEST(LinearCrossEntropy, LossAndGradientsMatchTorchForAnyChunking) {
  for (const std::int64_t chunk_bytes : kChunkBytes) {
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "chunk " << chunk_bytes << ", biased " << biased);
      // Every chunk rounds the weight's gradient to bf16 once more.
      const double factor = chunk_bytes == 1 ? 2.0 : 1.5;
      expect_matches(fused(some_labels(), {.chunk_bytes = chunk_bytes}), plain(some_labels()), inputs(biased), factor);
      expect_matches(fused(some_labels(), {.normalizer = 1000, .chunk_bytes = chunk_bytes}), plain(some_labels(), 1000),
                     inputs(biased), factor);
    }
  }
}

TEST(LinearCrossEntropy, LossesPerTokenMatchTorch) {
  const variable_list in = inputs(true);
  const at::Tensor labels = some_labels();
  const at::Tensor logits = at::linear(in[0], in[1], in[2]).reshape({-1, kVocab});
  const at::Tensor exact = at::cross_entropy_loss(
      logits, labels.reshape({-1}).masked_fill(labels.reshape({-1}).lt(0), -100), {}, at::Reduction::None);
  for (const std::int64_t chunk_bytes : kChunkBytes) {
    const auto losses = [&](at::ScalarType type) {
      return linear_cross_entropy_losses(in[0].to(type), in[1].to(type).requires_grad_(), in[2].to(type), labels,
                                         {.chunk_bytes = chunk_bytes});
    };
    EXPECT_LT(error_of(losses(at::kFloat), exact), 1e-6);
    EXPECT_LT(error_of(losses(at::kBFloat16), exact), 0x1p-8);
    EXPECT_EQ(losses(at::kBFloat16).scalar_type(), at::kFloat);
    EXPECT_FALSE(losses(at::kFloat).requires_grad());
    EXPECT_EQ(losses(at::kFloat)[3].item<float>(), 0.0f) << "an ignored token";
  }
}

TEST(LinearCrossEntropy, AllLabelsIgnoredOrNoTokensGiveZero) {
  for (const std::int64_t tokens : {0, 40}) {
    SCOPED_TRACE(tokens);
    const at::Tensor hidden = at::randn({tokens, kWidth}).requires_grad_();
    const at::Tensor weight = at::randn({kVocab, kWidth}).requires_grad_(), bias = at::randn({kVocab}).requires_grad_();
    const at::Tensor loss =
        linear_cross_entropy(hidden, weight, bias, at::full({tokens}, -100, at::kLong), {.chunk_bytes = 1});
    EXPECT_EQ(loss.item<float>(), 0.0f);
    loss.backward();
    EXPECT_TRUE(at::equal(hidden.grad(), at::zeros_like(hidden)));
    EXPECT_TRUE(at::equal(weight.grad(), at::zeros_like(weight)));
    EXPECT_TRUE(at::equal(bias.grad(), at::zeros_like(bias)));
  }
}

TEST(LinearCrossEntropy, TheLossMayBeScaledWithoutSlots) {
  const auto scaled = [](const Op& op) {
    return [op](const variable_list& in) { return variable_list{op(in)[0] * 3.0}; };
  };
  expect_matches(scaled(fused(some_labels())), scaled(plain(some_labels())), inputs(true));
}

TEST(LinearCrossEntropy, FrozenWeightsGetNoGradient) {
  const variable_list in = inputs(true);
  const at::Tensor hidden = in[0].to(at::kFloat).requires_grad_(), weight = in[1].to(at::kFloat),
                   bias = in[2].to(at::kFloat);
  linear_cross_entropy(hidden, weight, bias, some_labels()).backward();
  EXPECT_TRUE(hidden.grad().defined());
  EXPECT_FALSE(weight.grad().defined() || bias.grad().defined());
}

// Two micro-batches that share one normalizer equal the whole batch; the slots start as NaN.
TEST(LinearCrossEntropy, SlotsGatherMicroBatches) {
  const variable_list in = inputs(true), weights{at::ones({}, at::kDouble)};
  const Traced exact = run(plain(some_labels(), 50), in, at::kDouble, weights);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t chunk_bytes : kChunkBytes) {
      variable_list leaves;
      for (const auto& x : in) leaves.push_back(x.to(type, false, true).requires_grad_());
      Sinks sinks({leaves[1], leaves[2]});
      const tensor::GradientSinks::Guard guard(sinks.registry());
      double loss = 0;
      for (int i = 0; i < 2; ++i) {
        const at::Tensor part = linear_cross_entropy(leaves[0][i], leaves[1], leaves[2], some_labels()[i],
                                                     {.normalizer = 50, .chunk_bytes = chunk_bytes});
        part.backward();
        loss += part.item<double>();
      }
      const double bound = type == at::kFloat ? 1e-5 : 0x1p-7;
      EXPECT_NEAR(loss, exact.outputs[0].item<double>(), loss * bound);
      EXPECT_LT(error_of(leaves[0].grad(), exact.gradients[0]), bound);
      EXPECT_LT(error_of(sinks[0], exact.gradients[1]), bound);
      EXPECT_LT(error_of(sinks[1], exact.gradients[2]), bound);
      EXPECT_FALSE(leaves[1].grad().defined() || leaves[2].grad().defined());
    }
  }
}

TEST(LinearCrossEntropy, WithSlotsAScaledLossIsRefused) {
  const at::Tensor hidden = at::randn({4, kWidth}), weight = at::randn({kVocab, kWidth}).requires_grad_();
  Sinks sinks({weight});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  const at::Tensor loss = linear_cross_entropy(hidden, weight, {}, at::zeros({4}, at::kLong)) * 2.0;
  EXPECT_MESSAGE(loss.backward(), "scale it through the normalizer option (got a gradient of 2)");
}

TEST(LinearCrossEntropy, EvaluationLeavesSlotsAlone) {
  const at::Tensor hidden = at::randn({4, kWidth}), weight = at::randn({kVocab, kWidth}).requires_grad_();
  Sinks sinks({weight});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  const at::NoGradGuard no_grad;
  const at::Tensor loss = linear_cross_entropy(hidden, weight, {}, at::zeros({4}, at::kLong));
  EXPECT_GT(loss.item<float>(), 0.0f);
  EXPECT_FALSE(loss.requires_grad());
  EXPECT_TRUE(sinks[0].isnan().all().item<bool>());
}

TEST(LinearCrossEntropy, NanReachesTheLoss) {
  at::Tensor hidden = at::randn({20, kWidth});
  hidden[7][3] = NAN;
  const at::Tensor weight = at::randn({kVocab, kWidth}).requires_grad_();
  const at::Tensor loss = linear_cross_entropy(hidden, weight, {}, at::zeros({20}, at::kLong));
  EXPECT_TRUE(std::isnan(loss.item<float>()));
  const at::Tensor losses = linear_cross_entropy_losses(hidden, weight, {}, at::zeros({20}, at::kLong));
  EXPECT_EQ(losses.isnan().sum().item<std::int64_t>(), 1);
}

TEST(LinearCrossEntropy, MessagesNameWhatDoesNotFit) {
  const at::Tensor hidden = at::zeros({4, 8}), weight = at::zeros({10, 8}), labels = at::zeros({4}, at::kLong), none;
  EXPECT_MESSAGE(linear_cross_entropy(hidden, at::zeros({10, 7}), none, labels),
                 "hidden [4, 8] does not fit weight [10, 7]");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight, at::zeros({9}), labels), "the bias does not fit weight [10, 8]");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight, none, at::zeros({3}, at::kLong)),
                 "expected 4 int64 labels, got 3 of Long");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight, none, at::zeros({4}, at::kInt)), "got 4 of Int");
  EXPECT_MESSAGE(linear_cross_entropy_losses(hidden, weight, none, labels + 10),
                 "label 10 is outside a vocabulary of 10");
}

}  // namespace
}  // namespace gantry::kernels
