// The fused head and loss against torch's cross entropy in fp64.
#include <ATen/autocast_mode.h>

#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/tensor/live_bytes.h"
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

// torch's loss on explicit logits, normalised as asked.
Op plain_loss(const at::Tensor& labels, const LinearCrossEntropyOptions& options = {}) {
  return [=](const variable_list& in) -> variable_list {
    const at::Tensor bias = in.size() > 2 ? in[2] : at::Tensor();
    at::Tensor logits = at::matmul(in[0].reshape({-1, kWidth}), in[1].t());
    if (bias.defined()) logits = logits + bias;
    logits = logits.to(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    const at::Tensor flat = labels.reshape({-1}), ignored = flat.lt(0).logical_or(flat.eq(options.ignore_index));
    at::Tensor sum = at::cross_entropy_loss(logits, flat.masked_fill(ignored, -100), {}, at::Reduction::Sum, -100,
                                            options.label_smoothing);
    if (options.z_loss != 0) {
      sum = sum + (at::logsumexp(logits, 1).square() * ignored.logical_not()).sum() * options.z_loss;
    }
    if (options.reduction == LossReduction::kSum) return {sum};
    return {sum / (options.normalizer != 0 ? options.normalizer : ignored.logical_not().sum().item<double>())};
  };
}

Op fused(const at::Tensor& labels, const LinearCrossEntropyOptions& options = {}) {
  return [=](const variable_list& in) -> variable_list {
    return {linear_cross_entropy(in[0], in[1], in.size() > 2 ? in[2] : at::Tensor(), labels, options)};
  };
}

Op times(const Op& op, double factor) {
  return [=](const variable_list& in) { return variable_list{op(in)[0] * factor}; };
}

variable_list loss_inputs(bool biased) {
  variable_list result{normal({2, kTokens / 2, kWidth}, 1), normal({kVocab, kWidth}, 2, 0.5)};
  if (biased) result.push_back(normal({kVocab}, 3));
  return result;
}

// One chunk, and chunks of 16 rows (49 labels count).
const std::vector<std::int64_t> kChunkBytes{std::int64_t{1} << 20, 1};

TEST(LinearCrossEntropy, LossAndGradientsMatchTorchForAnyChunking) {
  for (const std::int64_t chunk_bytes : kChunkBytes) {
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "chunk " << chunk_bytes << ", biased " << biased);
      // Every chunk rounds the weight's gradient to bf16 once more.
      const double factor = chunk_bytes == 1 ? 2.0 : 1.5;
      expect_matches(fused(some_labels(), {.chunk_bytes = chunk_bytes}), plain_loss(some_labels()), loss_inputs(biased),
                     factor);
      expect_matches(fused(some_labels(), {.normalizer = 1000, .chunk_bytes = chunk_bytes}),
                     plain_loss(some_labels(), {.normalizer = 1000}), loss_inputs(biased), factor);
    }
  }
}

TEST(LinearCrossEntropy, LossesPerTokenMatchTorch) {
  const variable_list in = loss_inputs(true);
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

TEST(LinearCrossEntropy, SmoothingZLossIgnoredIndexAndSumMatchTorch) {
  const at::Tensor labels = some_labels();
  const std::int64_t ignored = labels[0][0].item<std::int64_t>();
  for (const std::int64_t chunk_bytes : kChunkBytes) {
    SCOPED_TRACE(chunk_bytes);
    for (const auto& options : std::vector<LinearCrossEntropyOptions>{
             {.chunk_bytes = chunk_bytes, .label_smoothing = 0.1},
             {.chunk_bytes = chunk_bytes, .z_loss = 1e-2},
             {.chunk_bytes = chunk_bytes, .ignore_index = ignored, .label_smoothing = 0.2, .z_loss = 1e-3},
             {.chunk_bytes = chunk_bytes, .reduction = LossReduction::kSum, .ignore_index = ignored}}) {
      expect_matches(fused(labels, options), plain_loss(labels, options), loss_inputs(true), 2.0);
    }
  }
}

TEST(LinearCrossEntropy, AnIgnoredIndexMayLieOutsideTheVocabulary) {
  const variable_list in = loss_inputs(false);
  const at::Tensor labels = some_labels(), padded = labels.masked_fill(labels.lt(0), kVocab);
  const at::Tensor loss = linear_cross_entropy(in[0], in[1], {}, padded, {.ignore_index = kVocab});
  EXPECT_EQ(loss.item<double>(), linear_cross_entropy(in[0], in[1], {}, labels).item<double>());
}

TEST(LinearCrossEntropy, DoublesStayDoubles) {
  const LinearCrossEntropyOptions options{.chunk_bytes = 1, .label_smoothing = 0.1, .z_loss = 1e-3};
  const variable_list in = loss_inputs(true), weights{at::full({}, 0.7, at::kDouble)};
  const Traced exact = run(plain_loss(some_labels(), options), in, at::kDouble, weights);
  const Traced actual = run(fused(some_labels(), options), in, at::kDouble, weights);
  EXPECT_EQ(actual.outputs[0].scalar_type(), at::kDouble);
  expect_errors(actual, exact, [](std::size_t) { return 1e-13; });
  EXPECT_EQ(linear_cross_entropy_losses(in[0], in[1], in[2], some_labels()).scalar_type(), at::kDouble);
}

// A gradient of the softmax over many tokens is below the smallest fp16 number until the loss is scaled.
TEST(LinearCrossEntropy, AScaledLossKeepsHalfGradientsInRange) {
  const LinearCrossEntropyOptions options{.normalizer = 1e6, .chunk_bytes = 1};
  const variable_list in = loss_inputs(true), weights{at::ones({}, at::kDouble)};
  const Traced exact = run(times(plain_loss(some_labels(), options), 0x1p15), in, at::kDouble, weights);
  const Traced actual = run(times(fused(some_labels(), options), 0x1p15), in, at::kHalf, weights);
  expect_errors(actual, exact, [](std::size_t) { return 0x1p-10; });
  EXPECT_EQ(actual.outputs[0].scalar_type(), at::kFloat);
  EXPECT_EQ(actual.gradients[1].scalar_type(), at::kHalf);
}

TEST(LinearCrossEntropy, TheLossMayBeScaledWithoutSlots) {
  expect_matches(times(fused(some_labels()), 3.0), times(plain_loss(some_labels()), 3.0), loss_inputs(true));
}

// Every backward pass of a retained graph gives the same, whatever the caller did to the gradients before.
TEST(LinearCrossEntropy, ARetainedGraphIsReadAgain) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(type));
    const variable_list leaves = leaves_of(loss_inputs(true), type);
    const at::Tensor loss = fused(some_labels())(leaves)[0];
    const variable_list first = torch::autograd::grad({loss}, leaves, {}, true);
    variable_list copies;
    for (const auto& x : first) {
      copies.push_back(x.clone());
      x.zero_();
    }
    const variable_list doubled = torch::autograd::grad({loss * 2.0}, leaves, {}, true);
    const variable_list last = torch::autograd::grad({loss}, leaves);
    for (std::size_t i = 0; i < copies.size(); ++i) {
      EXPECT_GT(copies[i].abs().max().item<double>(), 0.0);
      EXPECT_TRUE(at::equal(last[i], copies[i])) << i;
      EXPECT_LE(error_of(doubled[i], copies[i].to(at::kDouble) * 2.0), 0x1p-9) << i;
    }
  }
}

TEST(LinearCrossEntropy, SecondDerivativesAreRefused) {
  variable_list leaves;
  for (const auto& x : loss_inputs(true)) leaves.push_back(x.clone().requires_grad_());
  const at::Tensor loss = fused(some_labels())(leaves)[0];
  const variable_list gradients = torch::autograd::grad({loss}, leaves, {}, true, true);
  for (const auto& leaf : leaves) {
    try {
      (void)torch::autograd::grad({gradients[0].square().sum() + loss}, {leaf}, {}, true);
      ADD_FAILURE() << "expected an error";
    } catch (const std::exception& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("linear_cross_entropy: second derivatives are not available"), std::string::npos)
          << message;
    }
  }
}

TEST(LinearCrossEntropy, InputsNeedNotBeContiguous) {
  const variable_list in = loss_inputs(false);
  const Traced exact = run(plain_loss(some_labels()), in, at::kDouble, {at::ones({}, at::kDouble)});
  const at::Tensor stored = in[0].to(at::kFloat).transpose(0, 2).contiguous().requires_grad_(),
                   weight = in[1].to(at::kFloat).t().contiguous().requires_grad_(),
                   labels = some_labels().t().contiguous().t();
  linear_cross_entropy(stored.transpose(0, 2), weight.t(), {}, labels).backward();
  EXPECT_LT(error_of(stored.grad().transpose(0, 2), exact.gradients[0]), 1e-5);
  EXPECT_LT(error_of(weight.grad().t(), exact.gradients[1]), 1e-5);
}

// A token that does not count is not looked at.
TEST(LinearCrossEntropy, GarbageAtIgnoredTokensDoesNotSpread) {
  const variable_list in = loss_inputs(false);
  const at::Tensor labels = some_labels();
  const at::Tensor clean = in[0].to(at::kFloat).requires_grad_(), weight = in[1].to(at::kFloat).requires_grad_();
  const at::Tensor dirty = clean.detach().masked_fill(labels.lt(0).unsqueeze(2), NAN).requires_grad_();
  const auto gradients = [&](const at::Tensor& hidden) {
    return torch::autograd::grad({linear_cross_entropy(hidden, weight, {}, labels)}, {hidden, weight});
  };
  const variable_list expected = gradients(clean), actual = gradients(dirty);
  EXPECT_TRUE(at::equal(actual[0], expected[0]));
  EXPECT_TRUE(at::equal(actual[1], expected[1]));
  EXPECT_EQ(actual[0].masked_select(labels.lt(0).unsqueeze(2)).abs().sum().item<float>(), 0.0f);
}

struct HeadSize {
  static constexpr std::int64_t kTokens = 1024, kVocab = 4000, kWidth = 64, kChunk = 1 << 20, kSlack = 64 << 10;
  static constexpr std::int64_t kWeightBytes = kVocab * kWidth * 4, kHiddenBytes = kTokens * kWidth * 4;

  explicit HeadSize(bool hidden_wanted, bool weight_wanted) {
    hidden.requires_grad_(hidden_wanted);
    weight.requires_grad_(weight_wanted);
  }
  at::Tensor loss() const { return linear_cross_entropy(hidden, weight, {}, labels, {.chunk_bytes = kChunk}); }

  at::Tensor hidden = at::randn({kTokens, kWidth}), weight = at::randn({kVocab, kWidth}) * 0.1;
  at::Tensor labels = at::arange(kTokens);
};

// A chunk of logits (16 MiB at once otherwise) and the gradients, also where backward() scales them.
TEST(LinearCrossEntropy, PeakMemoryIsOneChunkAndTheGradients) {
  const HeadSize head(true, true);
  const tensor::LiveBytes live;
  (head.loss() * 3.0).backward();
  EXPECT_LE(live.peak(), HeadSize::kChunk + HeadSize::kWeightBytes + HeadSize::kHiddenBytes + HeadSize::kSlack);
  EXPECT_GE(live.peak(), HeadSize::kChunk / 2 + HeadSize::kWeightBytes + HeadSize::kHiddenBytes);
  EXPECT_LE(live.now(), HeadSize::kWeightBytes + HeadSize::kHiddenBytes + 1024) << "kept after backward()";
}

TEST(LinearCrossEntropy, WhatNobodyWantsIsNotAllocated) {
  {
    const HeadSize head(true, false);
    const tensor::LiveBytes live;
    head.loss().backward();
    EXPECT_LE(live.peak(), HeadSize::kChunk + HeadSize::kHiddenBytes + HeadSize::kSlack) << "a frozen weight";
  }
  {
    const HeadSize head(false, true);
    const tensor::LiveBytes live;
    head.loss().backward();
    EXPECT_LE(live.peak(), HeadSize::kChunk + HeadSize::kWeightBytes + HeadSize::kSlack) << "a frozen hidden";
    EXPECT_FALSE(head.hidden.grad().defined());
  }
  const HeadSize head(true, true);
  const at::NoGradGuard no_grad;
  const tensor::LiveBytes live;
  const at::Tensor loss = head.loss();
  EXPECT_LE(live.peak(), HeadSize::kChunk + HeadSize::kSlack) << "without gradients";
}

TEST(LinearCrossEntropy, ChunksFitTheirBytesAndAreEven) {
  constexpr std::int64_t kMiB = 1 << 20;
  EXPECT_EQ(linear_cross_entropy_chunk_rows(4096, 50257, at::kFloat), 344);  // 66 MiB, 12 chunks
  EXPECT_EQ(linear_cross_entropy_chunk_rows(100, 50257, at::kFloat), 100);
  EXPECT_EQ(linear_cross_entropy_chunk_rows(0, 50257, at::kFloat), 1);
  EXPECT_EQ(linear_cross_entropy_chunk_rows(1000, 50257, at::kFloat, 1), 16);
  EXPECT_EQ(linear_cross_entropy_chunk_rows(7, 50257, at::kFloat, 1), 7);
  for (const std::int64_t tokens : {33, 4096, 100000}) {
    EXPECT_LE(linear_cross_entropy_chunk_rows(tokens, 50257, at::kBFloat16) * 50257 * 2, 24 * kMiB) << tokens;
  }
}

TEST(LinearCrossEntropy, AutocastDoesNotMixTypes) {
  const variable_list in = loss_inputs(true);
  const at::Tensor hidden = in[0].to(at::kFloat), weight = in[1].to(at::kFloat), bias = in[2].to(at::kFloat);
  const at::Tensor plain_loss = linear_cross_entropy(hidden, weight, bias, some_labels());
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor loss = linear_cross_entropy(hidden, weight, bias, some_labels());
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(at::equal(loss, plain_loss));
}

TEST(LinearCrossEntropy, FrozenWeightsGetNoGradient) {
  const variable_list in = loss_inputs(true);
  const at::Tensor hidden = in[0].to(at::kFloat).requires_grad_(), weight = in[1].to(at::kFloat),
                   bias = in[2].to(at::kFloat);
  linear_cross_entropy(hidden, weight, bias, some_labels()).backward();
  EXPECT_TRUE(hidden.grad().defined());
  EXPECT_FALSE(weight.grad().defined() || bias.grad().defined());
}

// Two micro-batches that share one normalizer equal the whole batch; the slots start as NaN.
TEST(LinearCrossEntropy, SlotsGatherMicroBatches) {
  const variable_list in = loss_inputs(true), weights{at::ones({}, at::kDouble)};
  const Traced exact = run(plain_loss(some_labels(), {.normalizer = 50}), in, at::kDouble, weights);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t chunk_bytes : kChunkBytes) {
      const variable_list leaves = leaves_of(in, type);
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

TEST(LinearCrossEntropy, WithSlotsASecondBackwardIsRefused) {
  const at::Tensor hidden = at::randn({4, kWidth}).requires_grad_(),
                   weight = at::randn({kVocab, kWidth}).requires_grad_();
  Sinks sinks({weight});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  const at::Tensor loss = linear_cross_entropy(hidden, weight, {}, at::zeros({4}, at::kLong));
  loss.backward({}, true);
  EXPECT_MESSAGE(loss.backward(), "a second backward() cannot add it again");
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
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight, none, labels + 10), "label 10 is outside a vocabulary of 10");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, at::zeros({0, 8}), none, labels), "weight [0, 8] is empty");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight.to(at::kBFloat16), none, labels),
                 "the weight is BFloat16, hidden is Float; convert one of them");
  EXPECT_MESSAGE(linear_cross_entropy(hidden, weight, at::zeros({10}, at::kHalf), labels), "the bias is Half");
  EXPECT_MESSAGE(linear_cross_entropy(hidden.to(at::kInt), weight, none, labels),
                 "expected fp32, bf16, fp16 or fp64, got Int");
}

TEST(LinearCrossEntropy, MessagesNameTheOptionThatIsWrong) {
  const at::Tensor hidden = at::zeros({4, 8}), weight = at::zeros({10, 8}), labels = at::zeros({4}, at::kLong), none;
  const auto call = [&](const LinearCrossEntropyOptions& options) {
    return linear_cross_entropy(hidden, weight, none, labels, options);
  };
  EXPECT_MESSAGE(call({.normalizer = -1}), "the normalizer must be positive");
  EXPECT_MESSAGE(call({.normalizer = NAN}), "got nan");
  EXPECT_MESSAGE(call({.normalizer = 2, .reduction = LossReduction::kSum}), "'sum' takes no normalizer, got 2");
  EXPECT_MESSAGE(call({.label_smoothing = 1.5}), "label_smoothing must lie between 0 and 1, got 1.5");
  EXPECT_MESSAGE(call({.z_loss = -1}), "z_loss must not be negative");
  EXPECT_MESSAGE(call({.chunk_bytes = -1}), "chunk_bytes must not be negative");
}

}  // namespace
}  // namespace gantry::kernels
