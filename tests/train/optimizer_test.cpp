// Schedules, flat buffers and the optimiser against libtorch's own AdamW and against transformers' training losses.
#include "gantry/train/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>

#include <cmath>
#include <limits>

#include "gantry/base/check.h"
#include "gantry/models/load.h"
#include "gantry/train/data.h"
#include "gantry/train/schedule.h"
#include "gantry/train/step.h"
#include "tests/models/golden.h"

namespace gantry::train {
namespace {

at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::kFloat);
}

TEST(Schedule, WarmUpRisesInEqualSteps) {
  const Schedule schedule{.peak = 0.8, .warmup_steps = 4, .total_steps = 10};
  for (int i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(schedule.at(i), 0.2 * (i + 1)) << i;
}

TEST(Schedule, DecaysReachTheFinalRatioAtTheLastStep) {
  for (const Decay decay : {Decay::kLinear, Decay::kCosine}) {
    const Schedule schedule{.peak = 2, .decay = decay, .warmup_steps = 1, .total_steps = 12, .final_ratio = 0.25};
    EXPECT_DOUBLE_EQ(schedule.at(1), 2);
    EXPECT_DOUBLE_EQ(schedule.at(6), 1.25) << "half way";
    EXPECT_DOUBLE_EQ(schedule.at(11), 0.5);
    EXPECT_DOUBLE_EQ(schedule.at(1000), 0.5) << "no rise afterwards";
  }
  const Schedule cosine{.peak = 1, .decay = Decay::kCosine, .total_steps = 5, .final_ratio = 0};
  EXPECT_NEAR(cosine.at(1), 0.5 * (1 + std::sqrt(0.5)), 1e-15);
}

TEST(Schedule, ConstantStaysAndNamesAreChecked) {
  const Schedule schedule{.peak = 3, .decay = parse_decay("constant"), .total_steps = 5};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(schedule.at(i), 3);
  try {
    parse_decay("sine");
    FAIL() << "expected InputError";
  } catch (const base::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("'sine' is not one of constant, linear, cosine"), std::string::npos)
        << error.what();
  }
}

// Two layers with one decayed matrix and one bias that is not; gradients chosen so that some steps are clipped.
TEST(FlatAdamw, EqualsLibtorchOverTenStepsWithClipping) {
  std::vector<at::Tensor> ours{seeded({5, 7}, 1), seeded({7}, 2), seeded({3, 3}, 3)};
  std::vector<at::Tensor> theirs;
  for (const auto& x : ours) theirs.push_back(x.clone().set_requires_grad(true));
  FlatParameters flat({{"a", ours[0], true}, {"b", ours[1], false}, {"c", ours[2], true}}, at::kFloat, at::kFloat);
  FlatAdamw optimizer(flat, {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.3, .clip_norm = 5.0});
  const auto options = [](double decay) {
    return std::make_unique<torch::optim::AdamWOptions>(
        torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).eps(1e-8).weight_decay(decay));
  };
  torch::optim::AdamW expected({torch::optim::OptimizerParamGroup({theirs[0], theirs[2]}, options(0.3)),
                                torch::optim::OptimizerParamGroup({theirs[1]}, options(0))},
                               torch::optim::AdamWOptions(1e-2));
  for (int step = 0; step < 10; ++step) {
    const double scale = step % 2 == 0 ? 0.1 : 3.0;
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const at::Tensor gradient = seeded(ours[i].sizes().vec(), 100 + 10 * step + i) * scale;
      theirs[i].mutable_grad() = gradient.clone();
      flat.gradients().narrow(0, offset, gradient.numel()).copy_(gradient.reshape({-1}));
      offset += gradient.numel();
    }
    const double norm = torch::nn::utils::clip_grad_norm_(theirs, 5.0);
    expected.step();
    const StepResult result = optimizer.step(1e-2);
    EXPECT_TRUE(result.applied);
    EXPECT_NEAR(result.gradient_norm, norm, 1e-5 * norm);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_LE((ours[i] - theirs[i]).abs().max().item<double>(), 2e-6) << "step " << step << ", parameter " << i;
    }
  }
}

TEST(FlatAdamw, NonFiniteGradientsChangeNothing) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    FlatParameters flat({{"a", seeded({6}, 1), true}}, at::kFloat, at::kFloat);
    FlatAdamw optimizer(flat, {});
    flat.gradients().fill_(0.5F);
    ASSERT_TRUE(optimizer.step(0.1).applied);
    const at::Tensor values = flat.values().clone(), first = optimizer.first().clone();
    flat.gradients()[3] = bad;
    EXPECT_FALSE(optimizer.step(0.1).applied);
    EXPECT_TRUE(flat.values().equal(values));
    EXPECT_TRUE(optimizer.first().equal(first));
    EXPECT_EQ(optimizer.steps_taken(), 1);
  }
}

TEST(FlatParameters, SplitMastersAreExactAndRestore) {
  const at::Tensor start = seeded({1000}, 4);
  FlatParameters flat({{"a", start.clone(), true}}, at::kBFloat16, at::kFloat);
  EXPECT_EQ(flat.values().scalar_type(), at::kBFloat16);
  EXPECT_TRUE(flat.masters().equal(start)) << "the master must hold every bit of the fp32 start";
  FlatAdamw optimizer(flat, {});
  flat.gradients().copy_(seeded({1000}, 5));
  optimizer.step(1e-5);  // far below a bf16 step: only the remainder can keep it
  const at::Tensor moved = flat.masters();
  EXPECT_FALSE(moved.equal(start));
  FlatParameters other({{"a", seeded({1000}, 6), true}}, at::kBFloat16, at::kFloat);
  other.restore({flat.values()}, flat.remainder());
  EXPECT_TRUE(other.masters().equal(moved));
  EXPECT_THROW(other.restore({flat.values()}, {}), base::InputError);
  EXPECT_THROW(other.restore({flat.values()}, flat.remainder().narrow(0, 0, 999)), base::InputError);
  EXPECT_THROW(other.restore({flat.values().narrow(0, 0, 999)}, flat.remainder()), base::InputError);
  EXPECT_THROW(other.restore({flat.values().to(at::kFloat)}, flat.remainder()), base::InputError);
  EXPECT_THROW(other.restore({flat.values(), flat.values()}, flat.remainder()), base::InputError);
  EXPECT_TRUE(other.masters().equal(moved)) << "a refused checkpoint changes nothing";
}

TEST(FlatParameters, GradientsChangeTheirTypeAndKeepTheirPlaces) {
  const at::Tensor a = seeded({2, 3}, 1), b = seeded({4}, 2);
  FlatParameters flat({{"a", a, true}, {"b", b, false}}, at::kBFloat16, at::kFloat);
  const at::Tensor values = flat.values().clone();
  flat.set_gradient_dtype(at::kBFloat16);
  EXPECT_EQ(flat.gradients().scalar_type(), at::kBFloat16);
  EXPECT_TRUE(flat.values().equal(values));
  flat.gradients().zero_();
  tensor::accumulate(*flat.sinks().find(flat.parameters()[1].parameter), at::ones({4}));
  EXPECT_TRUE(flat.gradients().narrow(0, 6, 4).eq(1).all().item<bool>()) << flat.gradients();
  EXPECT_TRUE(flat.gradients().narrow(0, 0, 6).eq(0).all().item<bool>()) << flat.gradients();
  const auto* before = flat.gradients().data_ptr();
  flat.set_gradient_dtype(at::kBFloat16);
  EXPECT_EQ(flat.gradients().data_ptr(), before) << "nothing to change";
}

TEST(StepRunner, ProbesChangeNothingThatAStepDependsOn) {
  GANTRY_GOLDEN_DIR(dir);
  TrainOptions options;
  options.dtype = "fp32";
  options.steps = 4;
  options.seed = 1;
  std::vector<double> losses[2];
  for (const bool probed : {false, true}) {
    const auto model = models::load_model(dir / "tiny-llama", {.dtype = at::kFloat});
    model->train();
    options.accumulation = probed ? 3 : 2;
    StepRunner runner(*model, options);
    at::manual_seed(5);
    const TrainBatch batch = runner.fullest_batch(2, 16);
    if (probed) {
      for (const bool several : {true, false}) {
        runner.set_several(several);
        const auto seconds = runner.probe_seconds(batch);
        const auto peak = runner.probe_peak_bytes(batch);
        ASSERT_TRUE(seconds && peak);
        EXPECT_GT(*seconds, 0);
        EXPECT_GT(*peak, std::uint64_t{1} << 20);
      }
      runner.set_several(true);
    }
    for (int step = 0; step < 3; ++step) losses[probed].push_back(runner.step({batch, batch}, step).loss);
    losses[probed].push_back(at::rand({1}).item<double>());  // the generator, too, stands where it stood
    for (const NamedParameter& item : runner.parameters().parameters()) EXPECT_FALSE(item.parameter.grad().defined());
  }
  EXPECT_EQ(losses[0], losses[1]);
}

TEST(StepRunner, TwoHalfBatchesEqualOneFullBatch) {
  GANTRY_GOLDEN_DIR(dir);
  const models::testing::GoldenTensors golden(dir / "tiny-llama" / "golden.safetensors");
  const at::Tensor ids = golden.get("input_ids");
  ASSERT_GE(ids.size(0), 2);
  at::Tensor labels = at::full_like(ids, -100);
  labels.narrow(1, 0, ids.size(1) - 1).copy_(ids.narrow(1, 1, ids.size(1) - 1));
  labels[0].narrow(0, 0, 3).fill_(-100);  // halves that count differently
  const auto batch = [&](std::int64_t first, std::int64_t rows) {
    TrainBatch result{.inputs = {.ids = ids.narrow(0, first, rows).contiguous()},
                      .labels = labels.narrow(0, first, rows).contiguous()};
    result.counted = result.labels.ge(0).sum().item<std::int64_t>();
    result.tokens = rows * ids.size(1);
    return result;
  };
  const auto run = [&](const std::vector<TrainBatch>& batches, at::Tensor& gradients) {
    const auto model = models::load_model(dir / "tiny-llama");
    TrainOptions options;
    options.steps = 10;
    options.dtype = "fp32";
    StepRunner runner(*model, options);
    const StepReport report = runner.step(batches, 0);
    gradients = runner.parameters().gradients().clone();
    return report;
  };
  at::Tensor whole, halves;
  const std::int64_t half = ids.size(0) / 2;
  const StepReport one = run({batch(0, ids.size(0))}, whole);
  const StepReport two = run({batch(0, half), batch(half, ids.size(0) - half)}, halves);
  EXPECT_NEAR(one.loss, two.loss, 1e-5);
  EXPECT_EQ(one.tokens, two.tokens);
  EXPECT_LE(models::testing::relative_error(halves, whole), 1e-5);
}

TEST(FlatAdamw, LossesOfTinyModelsMatchTransformers) {
  GANTRY_GOLDEN_DIR(dir);
  for (const char* folder : {"tiny-llama", "tiny-llama-tied", "tiny-gpt2", "tiny-bert"}) {
    const base::Json golden = base::read_json_file(dir / folder / "golden.json")["adamw"];
    const models::testing::GoldenTensors tensors(dir / folder / "golden.safetensors");
    const auto model = models::load_model(dir / folder);
    std::vector<NamedParameter> parameters;
    for (const auto& item : model->named_parameters()) parameters.push_back({item.key(), item.value(), true});
    FlatParameters flat(parameters, at::kFloat, at::kFloat);
    FlatAdamw optimizer(flat, {.beta1 = golden["betas"][0],
                               .beta2 = golden["betas"][1],
                               .eps = golden["eps"],
                               .weight_decay = golden["weight_decay"],
                               .clip_norm = 0});
    models::ModelInputs inputs{.ids = tensors.get("input_ids")};
    if (tensors.has("attention_mask")) inputs.key_mask = tensors.get("attention_mask").to(at::kBool);
    if (tensors.has("token_type_ids")) inputs.token_types = tensors.get("token_type_ids");
    at::Tensor labels = tensors.get("labels");
    if (model->config().is_decoder()) {
      const at::Tensor end = at::full({labels.size(0), 1}, -100, labels.options());
      labels = at::cat({labels.narrow(1, 1, labels.size(1) - 1), end}, 1);
    }
    std::size_t step = 0;
    for (const double expected : golden["loss_before_each_step"].get<std::vector<double>>()) {
      flat.sinks().begin_step();
      at::Tensor loss;
      {
        const tensor::GradientSinks::Guard guard(flat.sinks());
        loss = model->loss(inputs, labels);
        loss.backward();
      }
      flat.sinks().finish_step();
      EXPECT_NEAR(loss.item<double>(), expected, 1e-4 * expected) << folder << ", step " << step++;
      optimizer.step(golden["lr"]);
    }
  }
}

TEST(MaskTokens, FollowsTheSharesAndTheSeed) {
  const at::Tensor start = at::arange(200000).remainder(900).add(50).view({100, 2000});
  at::Tensor ids = start.clone(), labels;
  mask_tokens(ids, labels, 3, 1000, 7, 1);
  const at::Tensor chosen = labels.ge(0);
  EXPECT_TRUE(labels.index({chosen}).equal(start.index({chosen}))) << "labels are the true tokens";
  EXPECT_TRUE(ids.index({~chosen}).equal(start.index({~chosen}))) << "the others stay";
  const auto share = [](const at::Tensor& x) { return x.to(at::kDouble).mean().item<double>(); };
  EXPECT_NEAR(share(chosen), 0.15, 0.005);
  const at::Tensor now = ids.index({chosen}), before = start.index({chosen});
  EXPECT_NEAR(share(now.eq(3)), 0.8, 0.01);
  EXPECT_NEAR(share(now.eq(before)), 0.1, 0.01);
  EXPECT_LT(ids.max().item<std::int64_t>(), 1000);
  at::Tensor again = start.clone(), other = start.clone(), ignored;
  mask_tokens(again, ignored, 3, 1000, 7, 1);
  mask_tokens(other, ignored, 3, 1000, 7, 2);
  EXPECT_TRUE(again.equal(ids));
  EXPECT_FALSE(other.equal(ids)) << "every draw masks anew";
}

}  // namespace
}  // namespace gantry::train
