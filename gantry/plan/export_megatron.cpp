// Megatron-LM's command line, names of its main branch in August 2026 (megatron/training/arguments.py and the
// configuration classes that it turns into flags).
#include <algorithm>
#include <cmath>

#include "gantry/plan/export_common.h"

namespace gantry::plan::internal {
namespace {

class Flags {
 public:
  void add(std::string_view name) { lines_.push_back(fmt::format("--{}", name)); }
  template <class T>
  void add(std::string_view name, const T& value) {
    lines_.push_back(fmt::format("--{} {}", name, value));
  }
  // One flag a line, ready for a shell.
  std::string text() const { return fmt::format("{}\n", fmt::join(lines_, " \\\n")); }

 private:
  std::vector<std::string> lines_;
};

void add_model(const TrainPlan& plan, const spec::ModelConfig& model, Flags& flags) {
  flags.add("num-layers", model.num_layers);
  flags.add("hidden-size", model.hidden_size);
  flags.add("ffn-hidden-size", model.intermediate_size);
  flags.add("num-attention-heads", model.num_heads);
  flags.add("kv-channels", model.head_dim);
  if (model.num_kv_heads != model.num_heads) {
    flags.add("group-query-attention");
    flags.add("num-query-groups", model.num_kv_heads);
  }
  flags.add("seq-length", plan.sequence);
  flags.add("max-position-embeddings", std::max(model.max_positions, plan.sequence));
  if (model.family == spec::Family::kLlama) {
    flags.add("position-embedding-type", "rope");
    flags.add("rotary-base", std::llround(model.rope.theta));
    flags.add("normalization", "RMSNorm");
    flags.add("swiglu");
  }
  if (!model.output_bias && !model.mlp_bias) flags.add("disable-bias-linear");
  if (model.qkv_bias && !model.output_bias) flags.add("add-qkv-bias");
  if (!model.tied_embeddings) flags.add("untie-embeddings-and-output-weights");
}

// "Et*5|t*7|t*6L": E embedding, t layer, L head and loss, | between model chunks.
std::string layout(const TrainPlan& plan) {
  const std::vector<int> chunks = chunk_layers(plan);
  std::string text = "E";
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (i > 0) text += '|';
    text += chunks[i] == 1 ? "t" : fmt::format("t*{}", chunks[i]);
  }
  return text + "L";
}

void add_pipeline(const TrainPlan& plan, Flags& flags, Notes& notes) {
  const auto& stages = plan.stages;
  if (plan.schedule == Schedule::kZeroBubble) {
    notes.push_back("schedule 'zero_bubble' is not offered; Megatron-LM runs 1f1b");
  }
  if (stages.size() == 1) return;
  const bool interleaved = plan.schedule == Schedule::kInterleaved;
  if (equal_layers(plan)) {
    if (interleaved) flags.add("num-virtual-stages-per-pipeline-rank", plan.chunks);
    return;
  }
  // First, last and an even middle have flags of their own, which older releases know too.
  const bool even_middle = std::all_of(stages.begin() + 1, stages.end() - 1,
                                       [&](const Stage& stage) { return stage.layers == stages[1].layers; });
  if (even_middle && !interleaved) {
    flags.add("decoder-first-pipeline-num-layers", stages.front().layers);
    flags.add("decoder-last-pipeline-num-layers", stages.back().layers);
  } else {
    flags.add("pipeline-model-parallel-layout", fmt::format("\"{}\"", layout(plan)));
  }
}

void add_recompute(const TrainPlan& plan, const Uniform& uniform, Flags& flags, Notes& notes) {
  if (uniform.checkpointed == 0) return;
  flags.add("recompute-granularity", "full");
  if (uniform.all_checkpointed) {
    flags.add("recompute-method", "uniform");
    flags.add("recompute-num-layers", 1);
    return;
  }
  const int per_chunk = (uniform.checkpointed + plan.chunks - 1) / plan.chunks;
  if (per_chunk * plan.chunks != uniform.checkpointed) {
    notes.push_back(fmt::format("{} checkpointed layers do not divide over {} chunks; wrote {} for each chunk",
                                uniform.checkpointed, plan.chunks, per_chunk));
  }
  flags.add("recompute-method", "block");
  flags.add("recompute-num-layers", per_chunk);
}

void add_sharding(const Uniform& uniform, Flags& flags) {
  if (uniform.zero == 0) return;
  flags.add("use-distributed-optimizer");
  if (uniform.zero == 1) return;
  flags.add("use-megatron-fsdp");
  flags.add("data-parallel-sharding-strategy", uniform.zero == 2 ? "optim_grads" : "optim_grads_params");
  flags.add("ckpt-format", "fsdp_dtensor");
}

void add_offload(const spec::ModelConfig& model, const Uniform& uniform, Flags& flags, Notes& notes) {
  if (uniform.optimizer_offload > 0) {
    flags.add("optimizer-cpu-offload");
    flags.add("optimizer-offload-fraction", python_float(uniform.optimizer_offload));
    flags.add("use-precision-aware-optimizer");
    flags.add("overlap-cpu-optimizer-d2h-h2d");
  }
  if (uniform.weight_offload > 0)
    notes.push_back("offload.weights has no flag; wrote nothing, weights stay on the device");
  if (uniform.gradient_offload > 0) {
    notes.push_back("offload.gradients has no flag; wrote nothing, gradients stay on the device");
  }
  if (uniform.activation_offload == 0) return;
  if (uniform.stages > 1 || uniform.checkpointed > 0) {
    notes.push_back(
        "offload.activations: Megatron-LM offloads layers only without pipeline stages and checkpointing; wrote "
        "nothing, activations stay on the device");
    return;
  }
  const double layers = uniform.activation_offload * static_cast<double>(model.num_layers);
  const std::int64_t whole = std::clamp<std::int64_t>(std::llround(layers), 0, model.num_layers - 1);
  if (std::abs(layers - static_cast<double>(whole)) > 1e-9 * layers) {
    notes.push_back(fmt::format("offload.activations {} is not a number of layers below {}; wrote {} whole layers",
                                uniform.activation_offload, model.num_layers, whole));
  }
  if (whole > 0) flags.add("cpu-offloading-num-layers", whole);
}

void add_precision(const TrainPlan& plan, Flags& flags, Notes& notes) {
  if (plan.dtype != "fp32") flags.add(plan.dtype);
  flags.add("attention-backend", plan.flash_attention ? "flash" : "unfused");
  if (plan.chunked_loss) {
    flags.add("cross-entropy-loss-fusion");
    notes.push_back("chunked_loss: the fused loss still holds one tensor as wide as the vocabulary");
  }
}

}  // namespace

Export export_megatron(const TrainPlan& plan, const spec::ModelConfig& model) {
  Export result;
  Notes& notes = result.cannot_express;
  const Uniform uniform = make_uniform(plan, notes);
  Flags flags;
  flags.add("tensor-model-parallel-size", uniform.tensor_parallel);
  if (uniform.sequence_parallel) flags.add("sequence-parallel");
  flags.add("pipeline-model-parallel-size", uniform.stages);
  add_pipeline(plan, flags, notes);
  flags.add("micro-batch-size", uniform.micro_batch);
  flags.add("global-batch-size", plan.global_batch);
  add_sharding(uniform, flags);
  add_recompute(plan, uniform, flags, notes);
  add_offload(model, uniform, flags, notes);
  add_precision(plan, flags, notes);
  add_model(plan, model, flags);
  if (model.family == spec::Family::kBert) notes.push_back("a BERT model: run pretrain_bert.py, not pretrain_gpt.py");
  result.text = flags.text();
  return result;
}

}  // namespace gantry::plan::internal
