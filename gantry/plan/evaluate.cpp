// Pricing of whole plans.
#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/plan/inter_stage.h"
#include "gantry/plan/objective.h"
#include "gantry/plan/search.h"

namespace gantry::plan {

double warmup_micro_batches(Schedule schedule, int chunks, int stages, int stages_after, int accumulation) {
  double warmup = stages_after;
  // Every stage holds as many as the first: the gradients of weights wait for the cool-down.
  if (schedule == Schedule::kZeroBubble) warmup = stages - 1;
  if (schedule == Schedule::kInterleaved) {
    // In chunks, each a 1/chunks of the stage: Megatron's warm-up and the one that runs.
    warmup = (2.0 * stages_after + (chunks - 1.0) * stages + 1) / chunks - 1;
  }
  return std::clamp(warmup, 0.0, accumulation - 1.0);
}

Objective schedule_objective(Schedule schedule, int chunks, int accumulation, double weight_gradient_share) {
  const double fill = schedule == Schedule::kInterleaved  ? 1.0 / chunks
                      : schedule == Schedule::kZeroBubble ? 1 - 2 * weight_gradient_share
                                                          : 1.0;
  return {accumulation - fill, fill};
}

double weight_gradient_share(const cost::CostModel& model, int tensor_parallel) {
  double least = 1;
  // Checkpointed layers, which repeat most, run in one of these modes.
  for (const cost::LayerMode mode : {cost::LayerMode::kStore, cost::LayerMode::kInPlace, cost::LayerMode::kRecompute}) {
    const cost::SectionKey key{1, tensor_parallel, mode, false};
    const cost::Section& block = model.sections().at(key).block;
    const double seconds =
        2 * (block.forward_s + block.tp_forward_s) + block.backward_s + block.accumulate_s + block.tp_backward_s;
    if (seconds > 0) least = std::min(least, block.weight_gradient_s / seconds);
  }
  return least;
}

cost::StageQuery stage_query(const TrainPlan& plan, int index) {
  const Stage& stage = plan.stages[static_cast<std::size_t>(index)];
  const int stages = static_cast<int>(plan.stages.size());
  cost::StageQuery query;
  query.layers = stage.layers;
  query.checkpointed = stage.checkpointed;
  query.warmup = warmup_micro_batches(plan.schedule, plan.chunks, stages, stages - 1 - index, plan.accumulation);
  query.first = index == 0;
  query.last = index == stages - 1;
  query.mesh = stage.mesh;
  query.policy = stage.policy;
  query.accumulation = plan.accumulation;
  query.chunks = plan.schedule == Schedule::kInterleaved ? plan.chunks : 1;
  return query;
}

std::unique_ptr<cost::CostModel> cost_model(const SearchInput& input, const TrainPlan& plan) {
  cost::CostOptions options = input.cost;
  options.dtype = plan.dtype;
  options.flash_attention = plan.flash_attention;
  options.chunked_loss = plan.chunked_loss;
  return std::make_unique<cost::CostModel>(input.model, plan.sequence, input.profile, input.cluster, options);
}

double closed_form_s(const TrainPlan& plan, const cost::CostModel& model) {
  std::vector<StageChoice> choices;
  double share = 1;
  for (const Stage& stage : plan.stages) {
    GANTRY_ASSERT(stage.predicted.has_value());
    choices.push_back({stage.layers, 0, {stage.predicted->t_s, stage.predicted->d_s, 0}});
    share = std::min(share, weight_gradient_share(model, stage.policy.tensor_parallel));
  }
  return iteration_s(choices, schedule_objective(plan.schedule, plan.chunks, plan.accumulation, share));
}

void evaluate(TrainPlan& plan, const cost::CostModel& model) {
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const cost::StageCost cost = model.price(stage_query(plan, static_cast<int>(i)));
    plan.stages[i].predicted =
        StagePrediction{cost.t_s, cost.d_s, cost.memory_forward_bytes, cost.memory_backward_bytes, cost.host_bytes};
  }
  const double seconds = closed_form_s(plan, model);
  plan.predicted = PlanPrediction{seconds, static_cast<double>(plan.global_batch * plan.sequence) / seconds};
}

bool fits(const TrainPlan& plan, const cost::CostModel& model) {
  return std::ranges::all_of(plan.stages, [&](const Stage& stage) {
    const StagePrediction& predicted = *stage.predicted;
    return std::max(predicted.memory_forward_bytes, predicted.memory_backward_bytes) <= model.device_bytes() &&
           predicted.host_bytes <= model.host_bytes_per_device();
  });
}

}  // namespace gantry::plan
