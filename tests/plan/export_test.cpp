#include "gantry/plan/export.h"

#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "gantry/plan/plan_file.h"
#include "tests/plan/sample_plans.h"

namespace gantry::plan {
namespace {

using Notes = std::vector<std::string>;

// Two equal stages of 2 x 2 devices, checkpointed halfway.
TrainPlan equal_plan() {
  TrainPlan plan = sample_plan({12, 12}, 2, 2, 1, 16);
  plan.dtype = "bf16";
  for (Stage& stage : plan.stages) {
    stage.checkpointed = 6;
    stage.policy.sequence_parallel = true;
    stage.policy.optimizer_offload = 0.5;
  }
  return plan;
}

Export gpt_export(const TrainPlan& plan, std::string_view format) {
  int devices = 0;
  for (const Stage& stage : plan.stages) devices += stage.mesh.devices();
  return export_plan(plan, sample_gpt(), sample_cluster(1, devices), format);
}

TrainPlan llama_plan() {
  TrainPlan plan = sample_plan({15, 17}, 2, 2, 1, 8);
  plan.model = "llama3-8b";
  plan.dtype = "bf16";
  for (Stage& stage : plan.stages) {
    stage.policy.zero = 3;
    stage.policy.sequence_parallel = true;
    stage.checkpointed = stage.layers;
  }
  return plan;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(ExportMegatron, WritesTheWholeCommandLine) {
  const Export result = gpt_export(equal_plan(), "megatron");
  EXPECT_EQ(result.text, R"(--tensor-model-parallel-size 2 \
--sequence-parallel \
--pipeline-model-parallel-size 2 \
--micro-batch-size 1 \
--global-batch-size 32 \
--use-distributed-optimizer \
--recompute-granularity full \
--recompute-method block \
--recompute-num-layers 6 \
--optimizer-cpu-offload \
--optimizer-offload-fraction 0.5 \
--use-precision-aware-optimizer \
--overlap-cpu-optimizer-d2h-h2d \
--bf16 \
--attention-backend flash \
--num-layers 24 \
--hidden-size 2048 \
--ffn-hidden-size 8192 \
--num-attention-heads 16 \
--kv-channels 128 \
--seq-length 2048 \
--max-position-embeddings 2048
)");
  EXPECT_EQ(result.cannot_express, Notes{});
}

TEST(ExportMegatron, DescribesLlamaModels) {
  const std::string text = export_plan(llama_plan(), sample_llama(), sample_cluster(1, 8), "megatron").text;
  EXPECT_TRUE(contains(text, R"(--num-attention-heads 32 \
--kv-channels 128 \
--group-query-attention \
--num-query-groups 8 \
--seq-length 2048 \
--max-position-embeddings 8192 \
--position-embedding-type rope \
--rotary-base 500000 \
--normalization RMSNorm \
--swiglu \
--disable-bias-linear \
--untie-embeddings-and-output-weights
)")) << text;
  EXPECT_TRUE(contains(text,
                       "--use-distributed-optimizer \\\n--use-megatron-fsdp \\\n"
                       "--data-parallel-sharding-strategy optim_grads_params \\\n"));
  EXPECT_TRUE(contains(text,
                       "--recompute-granularity full \\\n--recompute-method uniform \\\n"
                       "--recompute-num-layers 1 \\\n"));
}

TEST(ExportMegatron, UnevenSplitsTakeTheSimplestFlagThatHoldsThem) {
  EXPECT_TRUE(contains(gpt_export(sample_plan({5, 7, 7, 5}, 1, 1, 1, 4), "megatron").text,
                       "--decoder-first-pipeline-num-layers 5 \\\n--decoder-last-pipeline-num-layers 5 \\\n"));
  EXPECT_TRUE(contains(gpt_export(sample_plan({5, 8, 6, 1, 4}, 1, 1, 1, 4), "megatron").text,
                       "--pipeline-model-parallel-layout \"Et*5|t*8|t*6|t|t*4L\" \\\n"));
  TrainPlan plan = sample_plan({10, 14}, 1, 1, 1, 4);
  plan.schedule = Schedule::kInterleaved;
  plan.chunks = 2;
  EXPECT_TRUE(
      contains(gpt_export(plan, "megatron").text, "--pipeline-model-parallel-layout \"Et*5|t*7|t*5|t*7L\" \\\n"));
  plan.stages[0].layers = plan.stages[1].layers = plan.stages[1].first_layer = 12;
  EXPECT_TRUE(contains(gpt_export(plan, "megatron").text, "--num-virtual-stages-per-pipeline-rank 2 \\\n"));
}

TEST(ExportMegatron, ListsWhatIsLost) {
  TrainPlan plan = equal_plan();
  plan.schedule = Schedule::kZeroBubble;
  plan.chunked_loss = true;
  plan.stages[0].checkpointed = 8;
  plan.stages[1].policy.zero = 2;
  plan.stages[0].policy.weight_offload = 0.25;
  plan.stages[0].policy.gradient_offload = plan.stages[1].policy.gradient_offload = 1;
  plan.stages[0].policy.optimizer_offload = 0.75;
  plan.stages[1].policy.activation_offload = 0.5;
  plan.stages[1].policy.mode = cost::LayerMode::kInPlace;
  std::swap(plan.stages[0].ranks, plan.stages[1].ranks);
  const Export result = gpt_export(plan, "megatron");
  EXPECT_EQ(result.cannot_express,
            (Notes{"checkpointed differs between stages (8, 6); wrote 8 for all",
                   "zero differs between stages (1, 2); wrote 2 for all",
                   "offload.weights differs between stages (0.25, 0); wrote 0.25 for all",
                   "offload.optimizer differs between stages (0.75, 0.5); wrote 0.75 for all",
                   "offload.activations differs between stages (0, 0.5); wrote 0.5 for all",
                   "ranks are not in order of the stages; the launcher gives stage after stage consecutive ranks, "
                   "tensor-parallel neighbours adjacent",
                   "layer_mode other than 'store' has no counterpart; wrote nothing, layers store more",
                   "schedule 'zero_bubble' is not offered; Megatron-LM runs 1f1b",
                   "offload.weights has no flag; wrote nothing, weights stay on the device",
                   "offload.gradients has no flag; wrote nothing, gradients stay on the device",
                   "offload.activations: Megatron-LM offloads layers only without pipeline stages and checkpointing; "
                   "wrote nothing, activations stay on the device",
                   "chunked_loss: the fused loss still holds one tensor as wide as the vocabulary"}));
  EXPECT_TRUE(contains(result.text, "--recompute-num-layers 8 \\\n"));
  EXPECT_TRUE(contains(result.text, "--data-parallel-sharding-strategy optim_grads \\\n"));
  EXPECT_TRUE(contains(result.text, "--optimizer-offload-fraction 0.75 \\\n"));
  EXPECT_TRUE(contains(result.text, "--cross-entropy-loss-fusion \\\n"));
}

TEST(ExportMegatron, UnevenMeshesBecomeEqualOnes) {
  TrainPlan plan = sample_plan({12, 12}, 4, 1, 1, 8);
  plan.stages[0].mesh = {1, 6};
  plan.stages[0].ranks = {0, 1, 2, 3, 4, 5};
  plan.stages[0].policy.data_parallel = 6;
  plan.stages[0].policy.micro_batch = 2;
  plan.stages[1].mesh = {1, 2};
  plan.stages[1].ranks = {6, 7};
  plan.stages[1].policy.data_parallel = 2;
  plan.stages[1].policy.micro_batch = 6;
  plan.global_batch = 96;
  const Export result = gpt_export(plan, "megatron");
  EXPECT_EQ(result.cannot_express, (Notes{"data_parallel or micro_batch differs between stages; wrote data_parallel 4, "
                                          "micro_batch 3, accumulation 8 for all"}));
  EXPECT_TRUE(contains(result.text, "--micro-batch-size 3 \\\n"));
}

TEST(ExportMegatron, MeshesThatCannotBeEqualAreNamed) {
  TrainPlan plan = sample_plan({8, 8, 8}, 2, 1, 2, 8);
  plan.stages[0].mesh = {1, 4};
  plan.stages[0].policy.data_parallel = 4;
  plan.stages[0].policy.micro_batch = 1;
  for (Stage& stage : plan.stages) stage.ranks.clear();
  const Export result = gpt_export(plan, "megatron");
  ASSERT_EQ(result.cannot_express.size(), 1u);
  EXPECT_EQ(result.cannot_express[0],
            "meshes differ between stages and 8 devices do not divide over 3 stages of tensor_parallel 1; wrote "
            "data_parallel 4 of the first stage, which no launcher of equal stages can run");
}

TEST(ExportTorchtitan, WritesTheWholeJobFile) {
  const Export result = export_plan(llama_plan(), sample_llama(), sample_cluster(1, 8), "torchtitan");
  EXPECT_EQ(result.cannot_express, Notes{});
  EXPECT_EQ(result.text, R"(# Plan for llama3-8b: choose the [model] with 32 layers of 4096.
[training]
local_batch_size = 8
global_batch_size = 16
seq_len = 2048
mixed_precision_param = "bfloat16"
enable_cpu_offload = false

[parallelism]
data_parallel_replicate_degree = 1
data_parallel_shard_degree = 2
fsdp_reshard_after_forward = "always"
tensor_parallel_degree = 2
pipeline_parallel_degree = 2
pipeline_parallel_schedule = "1F1B"
pipeline_parallel_microbatch_size = 1
module_fqns_per_model_part = [
  ["tok_embeddings", "layers.0", "layers.1", "layers.2", "layers.3", "layers.4", "layers.5", "layers.6", "layers.7", "layers.8", "layers.9", "layers.10", "layers.11", "layers.12", "layers.13", "layers.14"],
  ["layers.15", "layers.16", "layers.17", "layers.18", "layers.19", "layers.20", "layers.21", "layers.22", "layers.23", "layers.24", "layers.25", "layers.26", "layers.27", "layers.28", "layers.29", "layers.30", "layers.31", "norm", "output"],
]

[activation_checkpoint]
mode = "full"

# Later versions have no job file; there, add to the options of a registered configuration:
#   --parallelism.data_parallel_replicate_degree 1 --parallelism.data_parallel_shard_degree 2
#   --parallelism.tensor_parallel_degree 2 --parallelism.pipeline_parallel_degree 2
#   --parallelism.num_pp_microbatches 8
#   --training.max_context_length 2048 --training.num_tokens_per_microbatch_per_dp_rank 2048
#   --training.num_tokens_per_train_step 32768
)");
}

TEST(ExportTorchtitan, ReplicatesWithoutZero) {
  TrainPlan plan = sample_plan({32}, 4, 1, 2, 3);
  plan.dtype = "bf16";
  plan.stages[0].policy.zero = 0;
  const Export result = export_plan(plan, sample_llama(), sample_cluster(1, 4), "torchtitan");
  EXPECT_EQ(result.cannot_express, Notes{});
  EXPECT_TRUE(contains(result.text, "local_batch_size = 2\nglobal_batch_size = 24\n"));
  EXPECT_TRUE(contains(result.text, "data_parallel_replicate_degree = 4\ndata_parallel_shard_degree = 1\n"));
  EXPECT_TRUE(contains(result.text, "mode = \"none\"\n"));
  EXPECT_FALSE(contains(result.text, "module_fqns_per_model_part"));
}

TEST(ExportTorchtitan, ListsWhatIsLost) {
  TrainPlan plan = equal_plan();
  plan.dtype = "fp16";
  plan.flash_attention = false;
  for (Stage& stage : plan.stages) stage.policy.sequence_parallel = false;
  plan.stages[0].policy.activation_offload = plan.stages[1].policy.activation_offload = 1;
  const Export result = gpt_export(plan, "torchtitan");
  EXPECT_EQ(result.cannot_express,
            (Notes{"torchtitan has no gpt2 model; the file names the modules of its Llama",
                   "dtype fp16 is not offered; wrote bfloat16",
                   "flash_attention cannot be switched off; PyTorch chooses the kernel",
                   "sequence_parallel is always on with tensor parallelism",
                   "zero 1: torchtitan shards gradients and weights too; wrote fsdp_reshard_after_forward 'never', "
                   "which is ZeRO-2",
                   "offload.activations has no key; wrote nothing, activations stay on the device",
                   "offload of weights 0, gradients 0, optimizer 0.5: torchtitan offloads all three or none; wrote "
                   "enable_cpu_offload = true",
                   "checkpointed: the first 12 of 24 layers (by stage); wrote every layer of 2"}));
  EXPECT_TRUE(contains(result.text, "mode = \"selective\"\nselective_ac_option = \"2\"\n"));
  EXPECT_TRUE(contains(result.text, "enable_cpu_offload = true\n"));
}

TEST(ExportDeepspeed, WritesTheWholeFile) {
  TrainPlan plan = sample_plan({24}, 8, 1, 2, 4);
  plan.stages[0].policy.zero = 3;
  plan.stages[0].policy.weight_offload = 1;
  plan.stages[0].policy.optimizer_offload = 0.75;
  const Export result = gpt_export(plan, "deepspeed");
  EXPECT_EQ(result.text, R"({
  "train_batch_size": 64,
  "train_micro_batch_size_per_gpu": 2,
  "gradient_accumulation_steps": 4,
  "fp16": {
    "enabled": true
  },
  "zero_optimization": {
    "stage": 3,
    "overlap_comm": true,
    "offload_optimizer": {
      "device": "cpu",
      "pin_memory": true,
      "ratio": 0.75
    },
    "offload_param": {
      "device": "cpu",
      "pin_memory": true
    }
  }
}
)");
  EXPECT_EQ(result.cannot_express, (Notes{"flash_attention true: chosen by the model's code"}));
}

TEST(ExportDeepspeed, ListsWhatIsLost) {
  TrainPlan plan = sample_plan({10, 14}, 2, 2, 1, 16);
  for (Stage& stage : plan.stages) {
    stage.checkpointed = 6;
    stage.policy.sequence_parallel = true;
    stage.policy.zero = 2;
    stage.policy.optimizer_offload = 0.5;
    stage.policy.weight_offload = 0.5;
    stage.policy.activation_offload = 0.25;
  }
  const Export result = gpt_export(plan, "deepspeed");
  EXPECT_EQ(result.cannot_express,
            (Notes{"zero 2 with pipeline stages is refused by DeepSpeed; wrote 1",
                   "offload.optimizer 0.5: graded only with ZeRO-3; wrote all of it",
                   "offload.weights needs ZeRO-3; wrote nothing, weights stay on the device",
                   "offload.activations 0.25: only the kept inputs of checkpointed layers move, and all of them; wrote "
                   "cpu_checkpointing true",
                   "checkpointed: 6 layers of a stage; DeepSpeed checkpoints all or none, wrote all",
                   "pipeline: the program makes the stages, as PipelineModule(num_stages=2, "
                   "partition_method=\"uniform\")",
                   "layers differ between stages (10, 14); wrote a uniform split",
                   "sequence_parallel of norms has no key; wrote nothing",
                   "tensor_parallel with pipeline stages: the program gives PipelineModule a topology with both",
                   "flash_attention true: chosen by the model's code"}));
  const base::Json json = base::parse_json(result.text, "export");
  EXPECT_EQ(json["zero_optimization"]["stage"], 1);
  EXPECT_EQ(json["zero_optimization"]["offload_optimizer"]["device"], "cpu");
  EXPECT_EQ(json["tensor_parallel"]["autotp_size"], 2);
  EXPECT_EQ(json["activation_checkpointing"]["partition_activations"], true);
  EXPECT_EQ(json["pipeline"]["stages"], 2);
  EXPECT_EQ(json["pipeline"]["activation_checkpoint_interval"], 1);
}

TEST(ExportPlan, JsonLosesNothingAndOtherNamesAreErrors) {
  const Export result = gpt_export(equal_plan(), "json");
  EXPECT_EQ(plan_from_json(base::parse_json(result.text, "export"), "export"), equal_plan());
  EXPECT_EQ(result.cannot_express, Notes{});
  try {
    gpt_export(equal_plan(), "nemo");
    FAIL() << "accepted";
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(), "--export: expected megatron, torchtitan, deepspeed or json, found 'nemo'");
  }
  TrainPlan broken = equal_plan();
  broken.stages[0].policy.micro_batch = 0;
  EXPECT_THROW(gpt_export(broken, "megatron"), base::InputError);
}

}  // namespace
}  // namespace gantry::plan
