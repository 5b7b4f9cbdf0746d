// torchtitan's job file. Names are those of release 0.2.2, the last with TOML files; later versions take the same
// degrees as options, which a comment at the end of the file lists.
#include <algorithm>

#include "gantry/plan/export_common.h"

namespace gantry::plan::internal {
namespace {

std::string schedule(const TrainPlan& plan, Notes& notes) {
  if (plan.schedule == Schedule::kInterleaved) return "Interleaved1F1B";
  if (plan.schedule == Schedule::kZeroBubble) {
    notes.push_back("schedule 'zero_bubble' (ZB-H1, one chunk a stage) is not offered; wrote 1F1B");
  }
  return "1F1B";
}

// The modules of every model part, one part a line.
std::string module_names(const TrainPlan& plan) {
  const std::vector<int> chunks = chunk_layers(plan);
  std::string text = "[\n";
  int layer = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    std::vector<std::string> names;
    if (i == 0) names.emplace_back("\"tok_embeddings\"");
    for (int k = 0; k < chunks[i]; ++k) names.push_back(fmt::format("\"layers.{}\"", layer++));
    if (i + 1 == chunks.size()) names.insert(names.end(), {"\"norm\"", "\"output\""});
    text += fmt::format("  [{}],\n", fmt::join(names, ", "));
  }
  return text + "]";
}

struct Sharding {
  int replicate = 1;
  int shard = 1;
  std::string reshard;
};

Sharding sharding(const Uniform& uniform, Notes& notes) {
  if (uniform.data_parallel == 1) return {1, 1, "default"};
  if (uniform.zero == 0 && uniform.tensor_parallel == 1 && uniform.stages == 1) {
    return {uniform.data_parallel, 1, "default"};
  }
  if (uniform.zero < 2) {
    notes.push_back(
        fmt::format("zero {}: torchtitan shards gradients and weights too; wrote fsdp_reshard_after_forward 'never', "
                    "which is ZeRO-2",
                    uniform.zero));
  }
  return {1, uniform.data_parallel, uniform.zero == 3 ? "always" : "never"};
}

bool cpu_offload(const Uniform& uniform, Notes& notes) {
  if (uniform.activation_offload > 0) {
    notes.push_back("offload.activations has no key; wrote nothing, activations stay on the device");
  }
  const auto [least, most] = std::minmax({uniform.weight_offload, uniform.gradient_offload, uniform.optimizer_offload});
  if (most == 0) return false;
  if (least < 1) {
    notes.push_back(
        fmt::format("offload of weights {}, gradients {}, optimizer {}: torchtitan offloads all three or none; wrote "
                    "enable_cpu_offload = true",
                    uniform.weight_offload, uniform.gradient_offload, uniform.optimizer_offload));
  }
  return true;
}

std::string checkpointing(const TrainPlan& plan, const Uniform& uniform, Notes& notes) {
  if (uniform.all_checkpointed) return "mode = \"full\"\n";
  if (uniform.checkpointed == 0) return "mode = \"none\"\n";
  int checkpointed = 0;
  for (const Stage& stage : plan.stages) checkpointed += stage.checkpointed;
  const int every = plan.num_layers() / checkpointed;  // rounded towards more checkpointed layers
  const std::string written = every == 1 ? "all layers" : fmt::format("every layer of {}", every);
  notes.push_back(fmt::format("checkpointed: the first {} of {} layers (by stage); wrote {}", checkpointed,
                              plan.num_layers(), written));
  if (every == 1) return "mode = \"full\"\n";
  return fmt::format("mode = \"selective\"\nselective_ac_option = \"{}\"\n", every);
}

std::string newer_options(const TrainPlan& plan, const Uniform& uniform, const Sharding& shards) {
  const bool pipeline = uniform.stages > 1;
  std::string text = "# Later versions have no job file; there, add to the options of a registered configuration:\n";
  text += fmt::format(
      "#   --parallelism.data_parallel_replicate_degree {} --parallelism.data_parallel_shard_degree {}\n"
      "#   --parallelism.tensor_parallel_degree {} --parallelism.pipeline_parallel_degree {}\n",
      shards.replicate, shards.shard, uniform.tensor_parallel, uniform.stages);
  if (pipeline) text += fmt::format("#   --parallelism.num_pp_microbatches {}\n", uniform.accumulation);
  text += fmt::format(
      "#   --training.max_context_length {} --training.num_tokens_per_microbatch_per_dp_rank {}\n"
      "#   --training.num_tokens_per_train_step {}\n",
      plan.sequence, plan.sequence * uniform.micro_batch, plan.sequence * plan.global_batch);
  return text;
}

void note_model(const TrainPlan& plan, const spec::ModelConfig& model, const Uniform& uniform, Notes& notes) {
  if (model.family != spec::Family::kLlama) {
    notes.push_back(fmt::format("torchtitan has no {} model; the file names the modules of its Llama",
                                spec::family_name(model.family)));
  }
  if (plan.dtype == "fp16") notes.push_back("dtype fp16 is not offered; wrote bfloat16");
  if (!plan.flash_attention) notes.push_back("flash_attention cannot be switched off; PyTorch chooses the kernel");
  if (plan.chunked_loss) notes.push_back("chunked_loss has no key; wrote nothing");
  if (uniform.tensor_parallel > 1 && !uniform.sequence_parallel) {
    notes.push_back("sequence_parallel is always on with tensor parallelism");
  }
}

}  // namespace

Export export_torchtitan(const TrainPlan& plan, const spec::ModelConfig& model) {
  Export result;
  Notes& notes = result.cannot_express;
  const Uniform uniform = make_uniform(plan, notes);
  note_model(plan, model, uniform, notes);
  const Sharding shards = sharding(uniform, notes);
  const bool pipeline = uniform.stages > 1;
  std::string& text = result.text;
  text = fmt::format("# Plan for {}: choose the [model] with {} layers of {}.\n[training]\n", plan.model,
                     model.num_layers, model.hidden_size);
  // With a pipeline a rank's batch of one step is cut into micro-batches; without, gradients accumulate.
  text +=
      fmt::format("local_batch_size = {}\n", std::int64_t{uniform.micro_batch} * (pipeline ? uniform.accumulation : 1));
  text += fmt::format("global_batch_size = {}\nseq_len = {}\n", plan.global_batch, plan.sequence);
  text += fmt::format("mixed_precision_param = \"{}\"\n", plan.dtype == "fp32" ? "float32" : "bfloat16");
  text += fmt::format("enable_cpu_offload = {}\n\n[parallelism]\n", cpu_offload(uniform, notes));
  text += fmt::format("data_parallel_replicate_degree = {}\ndata_parallel_shard_degree = {}\n", shards.replicate,
                      shards.shard);
  text += fmt::format("fsdp_reshard_after_forward = \"{}\"\ntensor_parallel_degree = {}\n", shards.reshard,
                      uniform.tensor_parallel);
  text += fmt::format("pipeline_parallel_degree = {}\n", uniform.stages);
  if (pipeline) {
    text += fmt::format("pipeline_parallel_schedule = \"{}\"\npipeline_parallel_microbatch_size = {}\n",
                        schedule(plan, notes), uniform.micro_batch);
    text += fmt::format("module_fqns_per_model_part = {}\n", module_names(plan));
  }
  text += "\n[activation_checkpoint]\n" + checkpointing(plan, uniform, notes) + "\n";
  text += newer_options(plan, uniform, shards);
  return result;
}

}  // namespace gantry::plan::internal
