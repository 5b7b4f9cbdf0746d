#include "gantry/plan/export.h"

#include <algorithm>
#include <functional>

#include "gantry/base/check.h"
#include "gantry/plan/export_common.h"
#include "gantry/plan/plan_file.h"
#include "gantry/plan/verify.h"

namespace gantry::plan {
namespace internal {
namespace {

// The largest of the stages' values; a note where they differ.
template <class T>
T largest(const TrainPlan& plan, std::string_view name, const std::function<T(const Stage&)>& get, Notes& notes) {
  std::vector<T> values;
  for (const Stage& stage : plan.stages) values.push_back(get(stage));
  const T most = *std::ranges::max_element(values);
  if (std::ranges::count(values, most) != std::ssize(values)) {
    notes.push_back(
        fmt::format("{} differs between stages ({}); wrote {} for all", name, fmt::join(values, ", "), most));
  }
  return most;
}

void set_parallel(const TrainPlan& plan, Uniform& uniform, Notes& notes) {
  uniform.tensor_parallel = largest<int>(
      plan, "tensor_parallel", [](const Stage& stage) { return stage.policy.tensor_parallel; }, notes);
  int devices = 0;
  bool same = true;
  for (const Stage& stage : plan.stages) {
    devices += stage.mesh.devices();
    same &= stage.policy.data_parallel == plan.stages[0].policy.data_parallel &&
            stage.policy.micro_batch == plan.stages[0].policy.micro_batch &&
            stage.policy.tensor_parallel == uniform.tensor_parallel;
  }
  uniform.data_parallel = plan.stages[0].policy.data_parallel;
  uniform.micro_batch = plan.stages[0].policy.micro_batch;
  uniform.accumulation = plan.accumulation;
  if (same) return;
  const int group = uniform.stages * uniform.tensor_parallel;
  if (devices % group != 0) {
    notes.push_back(fmt::format(
        "meshes differ between stages and {} devices do not divide over {} stages of tensor_parallel {}; wrote "
        "data_parallel {} of the first stage, which no launcher of equal stages can run",
        devices, uniform.stages, uniform.tensor_parallel, uniform.data_parallel));
    return;
  }
  uniform.data_parallel = devices / group;
  uniform.accumulation = static_cast<int>(
      std::max<std::int64_t>(1, std::min<std::int64_t>(plan.accumulation, plan.global_batch / uniform.data_parallel)));
  const std::int64_t replicas = std::int64_t{uniform.data_parallel} * uniform.accumulation;
  uniform.micro_batch = static_cast<int>(std::max<std::int64_t>(1, plan.global_batch / replicas));
  notes.push_back(
      fmt::format("data_parallel or micro_batch differs between stages; wrote data_parallel {}, "
                  "micro_batch {}, accumulation {} for all",
                  uniform.data_parallel, uniform.micro_batch, uniform.accumulation));
  if (replicas * uniform.micro_batch != plan.global_batch) {
    notes.push_back(
        fmt::format("these do not multiply to global_batch {}; change one before running", plan.global_batch));
  }
}

void note_ranks_and_modes(const TrainPlan& plan, Notes& notes) {
  int next = 0;
  bool in_order = true;
  for (const Stage& stage : plan.stages) {
    for (const int rank : stage.ranks) in_order &= rank == next++;
  }
  if (!in_order) {
    notes.push_back(
        "ranks are not in order of the stages; the launcher gives stage after stage consecutive ranks, tensor-parallel "
        "neighbours adjacent");
  }
  const bool stock =
      std::ranges::all_of(plan.stages, [](const Stage& stage) { return stage.policy.mode == cost::LayerMode::kStore; });
  if (!stock) notes.push_back("layer_mode other than 'store' has no counterpart; wrote nothing, layers store more");
}

}  // namespace

Uniform make_uniform(const TrainPlan& plan, Notes& notes) {
  Uniform uniform;
  uniform.stages = static_cast<int>(plan.stages.size());
  set_parallel(plan, uniform, notes);
  uniform.all_checkpointed =
      std::ranges::all_of(plan.stages, [](const Stage& stage) { return stage.checkpointed == stage.layers; });
  if (uniform.all_checkpointed) {
    for (const Stage& stage : plan.stages) uniform.checkpointed = std::max(uniform.checkpointed, stage.checkpointed);
  } else {
    uniform.checkpointed = largest<int>(
        plan, "checkpointed", [](const Stage& stage) { return stage.checkpointed; }, notes);
  }
  uniform.zero = largest<int>(
      plan, "zero", [](const Stage& stage) { return stage.policy.zero; }, notes);
  const auto ratio = [&](std::string_view name, double cost::Policy::*member) {
    return largest<double>(
        plan, name, [member](const Stage& stage) { return stage.policy.*member; }, notes);
  };
  uniform.weight_offload = ratio("offload.weights", &cost::Policy::weight_offload);
  uniform.gradient_offload = ratio("offload.gradients", &cost::Policy::gradient_offload);
  uniform.optimizer_offload = ratio("offload.optimizer", &cost::Policy::optimizer_offload);
  uniform.activation_offload = ratio("offload.activations", &cost::Policy::activation_offload);
  uniform.sequence_parallel =
      largest<int>(
          plan, "sequence_parallel", [](const Stage& stage) { return stage.policy.sequence_parallel ? 1 : 0; },
          notes) != 0;
  note_ranks_and_modes(plan, notes);
  return uniform;
}

std::vector<int> chunk_layers(const TrainPlan& plan) {
  std::vector<int> layers;
  for (int chunk = 0; chunk < plan.chunks; ++chunk) {
    for (const Stage& stage : plan.stages) layers.push_back(stage.layers / plan.chunks);
  }
  return layers;
}

bool equal_layers(const TrainPlan& plan) {
  return std::ranges::all_of(plan.stages, [&](const Stage& stage) { return stage.layers == plan.stages[0].layers; });
}

std::string python_float(double value) { return base::OrderedJson(value).dump(); }

}  // namespace internal

Export export_plan(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster,
                   std::string_view format) {
  require_sound(plan, model, cluster);
  if (format == "megatron") return internal::export_megatron(plan, model);
  if (format == "torchtitan") return internal::export_torchtitan(plan, model);
  if (format == "deepspeed") return internal::export_deepspeed(plan);
  if (format == "json") return {plan_to_text(plan), {}};
  base::fail_input("--export: expected megatron, torchtitan, deepspeed or json, found '{}'", format);
}

}  // namespace gantry::plan
