// The published predictions of the released code of Mist (EuroSys '25) for GPT-1.3B on two L4 without FlashAttention.
#include <gtest/gtest.h>

#include <cmath>

#include "gantry/cost/stage.h"
#include "gantry/spec/named_models.h"

namespace gantry::cost {
namespace {

constexpr double kMegabyte = 1024.0 * 1024.0;

CostModel golden_model() {
  CostOptions options = CostOptions::artifact();
  options.flash_attention = false;
  Cluster cluster = load_cluster("l4-1x2");
  return CostModel(spec::named_model("gpt-1.3b"), 2048, load_profile("l4-mist"), cluster, options);
}

StageQuery data_parallel() {
  StageQuery query;
  query.layers = 24;
  query.checkpointed = 24;
  query.mesh = {1, 2};
  query.policy.micro_batch = 8;
  query.policy.data_parallel = 2;
  query.policy.zero = 1;
  query.accumulation = 2;
  return query;
}

TEST(GoldenPrediction, DataParallelIteration) {
  const StageCost cost = golden_model().price(data_parallel());
  EXPECT_NEAR(cost.t_s, 5.223716881, 5.2e-6);
  EXPECT_NEAR(cost.d_s, .211971755, 1e-6);
  const double iteration = 2 * cost.t_s + cost.d_s;
  EXPECT_NEAR(iteration / 10.659405, 1, 1e-6) << "seconds: " << iteration;
}

TEST(GoldenPrediction, PipelineIteration) {
  const CostModel model = golden_model();
  StageQuery first = data_parallel();
  first.layers = 12;
  first.checkpointed = 5;
  first.warmup = 1;
  first.last = false;
  first.mesh = {1, 1};
  first.policy.micro_batch = 2;
  first.policy.data_parallel = 1;
  first.accumulation = 16;
  StageQuery second = first;
  second.checkpointed = 0;
  second.warmup = 0;
  second.first = false;
  second.last = true;
  const StageCost a = model.price(first);
  const StageCost b = model.price(second);
  EXPECT_NEAR(a.t_s, .545545245, 5e-7);
  EXPECT_NEAR(b.t_s, .540200170, 5e-7);
  EXPECT_EQ(a.d_s, 0);
  EXPECT_EQ(b.d_s, 0);
  const double iteration = 15 * std::max(a.t_s, b.t_s) + a.t_s + b.t_s;
  EXPECT_NEAR(iteration / 9.268924, 1, 1e-6) << "seconds: " << iteration;
}

TEST(GoldenPrediction, DataParallelMemoryPeaks) {
  const CostModel model = golden_model();
  const StageCost cost = model.price(data_parallel());
  EXPECT_NEAR(cost.memory_forward_bytes / kMegabyte / 19255.25, 1, 1e-5) << cost.memory_forward_bytes / kMegabyte;
  EXPECT_NEAR(cost.memory_backward_bytes / kMegabyte / 19503.125, 1, 1e-5) << cost.memory_backward_bytes / kMegabyte;
  for (const bool backward : {false, true}) {
    double sum = 0;
    for (const CostTerm& term : model.explain_memory(data_parallel(), backward)) sum += term.value;
    EXPECT_NEAR(sum, backward ? cost.memory_backward_bytes : cost.memory_forward_bytes, 1) << "the terms add up";
  }
}

TEST(StagePhases, AddUpToTheStagesPrice) {
  const CostModel model = golden_model();
  StageQuery query = data_parallel();
  query.policy.zero = 3;
  query.policy.optimizer_offload = .5;
  query.policy.activation_offload = .25;
  query.checkpointed = 7;
  const StageCost cost = model.price(query);
  const StagePhases phases = model.phases(query);
  const auto seconds = [&](const std::vector<LayerStep>& steps) {
    double sum = 0;
    for (const LayerStep& step : steps) sum += overlap_s(step.alone_s, phases.factors) + step.serial_s;
    return sum;
  };
  const double steady = seconds(phases.forward) + seconds(phases.backward);
  EXPECT_NEAR(steady, cost.t_s, 1e-9);
  EXPECT_NEAR(seconds(phases.forward_first) + seconds(phases.backward_last) - steady, cost.d_s, 1e-9);
}

}  // namespace
}  // namespace gantry::cost
