// DeepSpeed's JSON, names of its main branch in August 2026 (deepspeed/runtime/config.py, zero/offload_config.py).
#include <algorithm>

#include "gantry/base/json.h"
#include "gantry/plan/export_common.h"

namespace gantry::plan::internal {
namespace {

using base::OrderedJson;

// ZeRO with a pipeline is at most stage 1: the pipeline engine refuses sharded gradients.
int zero_stage(const Uniform& uniform, Notes& notes) {
  int zero = uniform.zero;
  if (uniform.stages > 1 && zero > 1) {
    notes.push_back(fmt::format("zero {} with pipeline stages is refused by DeepSpeed; wrote 1", zero));
    zero = 1;
  }
  if (uniform.optimizer_offload > 0 && zero == 0) {
    notes.push_back("offload.optimizer needs ZeRO; wrote stage 1 instead of 0");
    zero = 1;
  }
  return zero;
}

OrderedJson zero_section(const Uniform& uniform, Notes& notes) {
  const int zero = zero_stage(uniform, notes);
  OrderedJson section = {{"stage", zero}};
  if (zero > 0) section["overlap_comm"] = true;
  if (uniform.optimizer_offload > 0) {
    section["offload_optimizer"] = {{"device", "cpu"}, {"pin_memory", true}};
    if (zero == 3) {
      section["offload_optimizer"]["ratio"] = uniform.optimizer_offload;
    } else if (uniform.optimizer_offload < 1) {
      notes.push_back(
          fmt::format("offload.optimizer {}: graded only with ZeRO-3; wrote all of it", uniform.optimizer_offload));
    }
  }
  if (uniform.weight_offload > 0 && zero == 3) {
    section["offload_param"] = {{"device", "cpu"}, {"pin_memory", true}};
    if (uniform.weight_offload < 1) {
      notes.push_back(fmt::format("offload.weights {}: not graded; wrote all of them", uniform.weight_offload));
    }
  } else if (uniform.weight_offload > 0) {
    notes.push_back("offload.weights needs ZeRO-3; wrote nothing, weights stay on the device");
  }
  if (uniform.gradient_offload > 0) {
    notes.push_back("offload.gradients has no key; gradients move with the offloaded optimizer");
  }
  return section;
}

void add_checkpointing(const Uniform& uniform, OrderedJson& json, Notes& notes) {
  const bool to_host = uniform.activation_offload > 0 && uniform.checkpointed > 0;
  if (uniform.activation_offload > 0 && !(to_host && uniform.all_checkpointed && uniform.activation_offload == 1)) {
    notes.push_back(
        fmt::format("offload.activations {}: only the kept inputs of checkpointed layers move, and all of "
                    "them; wrote cpu_checkpointing {}",
                    uniform.activation_offload, to_host));
  }
  if (uniform.checkpointed == 0) return;
  // Offload of checkpoints works on the partitioned ones only.
  json["activation_checkpointing"] = {{"partition_activations", to_host || uniform.tensor_parallel > 1},
                                      {"cpu_checkpointing", to_host}};
  if (!uniform.all_checkpointed) {
    notes.push_back(fmt::format("checkpointed: {} layers of a stage; DeepSpeed checkpoints all or none, wrote all",
                                uniform.checkpointed));
  }
  if (uniform.stages == 1) {
    notes.push_back(
        "checkpointed: without a pipeline the model's own code wraps the layers; the section only sets how they are "
        "kept");
  }
}

void add_pipeline_stages(const TrainPlan& plan, const Uniform& uniform, OrderedJson& json, Notes& notes) {
  if (plan.schedule != Schedule::kOneFOneB) {
    notes.push_back(fmt::format("schedule '{}' is not offered; DeepSpeed runs 1f1b", schedule_name(plan.schedule)));
  }
  if (uniform.stages == 1) return;
  json["pipeline"] = {{"stages", uniform.stages},
                      {"partition", "uniform"},
                      {"activation_checkpoint_interval", uniform.checkpointed > 0 ? 1 : 0}};
  notes.push_back(fmt::format(
      "pipeline: the program makes the stages, as PipelineModule(num_stages={}, partition_method=\"uniform\")",
      uniform.stages));
  if (!equal_layers(plan)) {
    std::vector<int> layers;
    for (const Stage& stage : plan.stages) layers.push_back(stage.layers);
    notes.push_back(fmt::format("layers differ between stages ({}); wrote a uniform split", fmt::join(layers, ", ")));
  }
}

void note_deepspeed_model(const TrainPlan& plan, const Uniform& uniform, Notes& notes) {
  if (uniform.sequence_parallel) notes.push_back("sequence_parallel of norms has no key; wrote nothing");
  if (uniform.tensor_parallel > 1 && uniform.stages > 1) {
    notes.push_back("tensor_parallel with pipeline stages: the program gives PipelineModule a topology with both");
  }
  notes.push_back(fmt::format("flash_attention {}: chosen by the model's code", plan.flash_attention));
  if (plan.chunked_loss) notes.push_back("chunked_loss: chosen by the model's code");
}

}  // namespace

Export export_deepspeed(const TrainPlan& plan) {
  Export result;
  Notes& notes = result.cannot_express;
  const Uniform uniform = make_uniform(plan, notes);
  OrderedJson json;
  json["train_batch_size"] = plan.global_batch;
  json["train_micro_batch_size_per_gpu"] = uniform.micro_batch;
  json["gradient_accumulation_steps"] = uniform.accumulation;
  if (plan.dtype != "fp32") json[plan.dtype] = {{"enabled", true}};
  json["zero_optimization"] = zero_section(uniform, notes);
  if (uniform.tensor_parallel > 1) json["tensor_parallel"] = {{"autotp_size", uniform.tensor_parallel}};
  add_checkpointing(uniform, json, notes);
  add_pipeline_stages(plan, uniform, json, notes);
  note_deepspeed_model(plan, uniform, notes);
  result.text = json.dump(2) + "\n";
  return result;
}

}  // namespace gantry::plan::internal
