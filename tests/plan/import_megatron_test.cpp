#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "gantry/plan/export.h"
#include "tests/plan/sample_plans.h"

namespace gantry::plan {
namespace {

TrainPlan request() {
  TrainPlan base;
  base.model = "gpt-1.3b";
  base.cluster = "l4-1x8";
  base.profile = "l4";
  base.sequence = 2048;
  base.global_batch = 32;
  return base;
}

TrainPlan import_flags(std::string_view flags, std::vector<std::string>* ignored = nullptr) {
  return plan_from_megatron(flags, request(), sample_gpt(), sample_cluster(1, 8), ignored);
}

std::string import_error(std::string_view flags) {
  try {
    import_flags(flags);
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "no error";
}

// The error with a sound micro-batch and two stages beside `flags`.
std::string error_of(const std::string& flags) {
  return import_error("--micro-batch-size 1 --pipeline-model-parallel-size 2 " + flags);
}

TEST(ImportMegatron, ReadsBlanksEqualSignsQuotesAndContinuedLines) {
  std::vector<std::string> ignored;
  const TrainPlan plan = import_flags(
      "torchrun --nproc-per-node 8 pretrain_gpt.py --tensor-model-parallel-size=2 \\\n"
      "  --pipeline-model-parallel-size '2'\t--micro-batch-size \"1\" --lr 1e-4 --data-path a b --bf16 "
      "--pipeline-model-parallel-layout Et\\*11\\|t\\*13L --use-distributed-optimizer --sequence-parallel "
      "--micro-batch-size 2",
      &ignored);
  EXPECT_EQ(ignored, (std::vector<std::string>{"torchrun", "--nproc-per-node 8 pretrain_gpt.py", "--lr 1e-4",
                                               "--data-path a b"}));
  TrainPlan expected = sample_plan({11, 13}, 2, 2, 2, 8);
  expected.cluster = "l4-1x8";
  expected.dtype = "bf16";
  for (Stage& stage : expected.stages) stage.policy.sequence_parallel = true;
  EXPECT_EQ(plan, expected);
}

TEST(ImportMegatron, DefaultsAreThoseOfMegatron) {
  const TrainPlan plan = import_flags("--micro-batch-size 4");
  ASSERT_EQ(plan.stages.size(), 1u);
  EXPECT_EQ(plan.stages[0].policy.zero, 0);
  EXPECT_EQ(plan.stages[0].policy.data_parallel, 8);
  EXPECT_EQ(plan.stages[0].mesh, (cost::Mesh{1, 8}));
  EXPECT_EQ(plan.accumulation, 1);
  EXPECT_EQ(plan.stages[0].checkpointed, 0);
  EXPECT_EQ(plan.dtype, "fp16");
}

TEST(ImportMegatron, StagesOverNodesTakeWholeNodes) {
  TrainPlan base = request();
  const TrainPlan plan = plan_from_megatron("--micro-batch-size 1 --pipeline-model-parallel-size 2", base, sample_gpt(),
                                            sample_cluster(4, 8), nullptr);
  EXPECT_EQ(plan.stages[1].mesh, (cost::Mesh{2, 8}));
  EXPECT_EQ(plan.stages[1].ranks.front(), 16);
}

TEST(ImportMegatron, ReadsRecomputation) {
  const std::string two = "--micro-batch-size 1 --pipeline-model-parallel-size 2 --recompute-granularity ";
  TrainPlan plan = import_flags(two + "full --recompute-method block --recompute-num-layers 5");
  EXPECT_EQ(plan.stages[0].checkpointed, 5);
  plan = import_flags(two + "full --recompute-method block --recompute-num-layers 100");
  EXPECT_EQ(plan.stages[1].checkpointed, 12);
  std::vector<std::string> ignored;
  plan = import_flags(two + "full --recompute-method uniform --recompute-num-layers 2", &ignored);
  EXPECT_EQ(plan.stages[0].checkpointed, 12);
  EXPECT_EQ(
      ignored,
      (std::vector<std::string>{"--recompute-num-layers 2 of method uniform (plans checkpoint layers one by one)"}));
  plan = import_flags(two + "selective", &ignored);
  EXPECT_EQ(plan.stages[0].checkpointed, 0);
  EXPECT_EQ(ignored, (std::vector<std::string>{"selective recomputation (plans checkpoint whole layers)"}));
}

TEST(ImportMegatron, ReadsShardingAndOffload) {
  EXPECT_EQ(import_flags("--micro-batch-size 1 --use-megatron-fsdp").stages[0].policy.zero, 3);
  EXPECT_EQ(import_flags("--micro-batch-size 1 --use-megatron-fsdp --data-parallel-sharding-strategy optim_grads")
                .stages[0]
                .policy.zero,
            2);
  EXPECT_EQ(import_flags("--micro-batch-size 1 --use-torch-fsdp2").stages[0].policy.zero, 3);
  const cost::Policy policy =
      import_flags("--micro-batch-size 1 --optimizer-cpu-offload --cpu-offloading-num-layers 6").stages[0].policy;
  EXPECT_EQ(policy.optimizer_offload, 1);
  EXPECT_EQ(policy.activation_offload, 0.25);
  EXPECT_FALSE(import_flags("--micro-batch-size 1 --attention-backend unfused").flash_attention);
}

TEST(ImportMegatron, ReadsLayouts) {
  const auto layers = [](const std::string& flags) {
    const TrainPlan plan = import_flags("--micro-batch-size 1 --pipeline-model-parallel-size 4 " + flags);
    std::vector<int> split{plan.chunks};
    for (const Stage& stage : plan.stages) split.push_back(stage.layers);
    return split;
  };
  EXPECT_EQ(layers(""), (std::vector<int>{1, 6, 6, 6, 6}));
  EXPECT_EQ(layers("--decoder-first-pipeline-num-layers 3"), (std::vector<int>{1, 3, 7, 7, 7}));
  EXPECT_EQ(layers("--decoder-first-pipeline-num-layers 5 --decoder-last-pipeline-num-layers 7"),
            (std::vector<int>{1, 5, 6, 6, 7}));
  EXPECT_EQ(layers("--num-layers-per-virtual-pipeline-stage 3"), (std::vector<int>{2, 6, 6, 6, 6}));
  EXPECT_EQ(layers("--num-virtual-stages-per-pipeline-rank 3"), (std::vector<int>{3, 6, 6, 6, 6}));
  EXPECT_EQ(layers("--pipeline-model-parallel-layout 'Ettt,(|t*6)*2,|t*9L'"), (std::vector<int>{1, 3, 6, 6, 9}));
  EXPECT_EQ(layers("--pipeline-model-parallel-layout 'E(t*3|)*7,tttL'"), (std::vector<int>{2, 6, 6, 6, 6}));
}

TEST(ImportMegatron, BadValuesNameTheFlag) {
  EXPECT_EQ(import_error("--pipeline-model-parallel-size 2"),
            "--micro-batch-size is missing; Megatron-LM has no default for it");
  EXPECT_EQ(error_of("--tensor-model-parallel-size two"),
            "--tensor-model-parallel-size must be a whole number, 1 to 1000000, found 'two'");
  EXPECT_EQ(error_of("--tensor-model-parallel-size 0"),
            "--tensor-model-parallel-size must be a whole number, 1 to 1000000, found '0'");
  EXPECT_EQ(error_of("--tensor-model-parallel-size 99999999999999999999"),
            "--tensor-model-parallel-size must be a whole number, 1 to 1000000, found '99999999999999999999'");
  EXPECT_EQ(error_of("--tensor-model-parallel-size --bf16"),
            "--tensor-model-parallel-size needs a value, found --bf16");
  EXPECT_EQ(error_of("--recompute-method"), "--recompute-method needs a value, found the end");
  EXPECT_EQ(error_of("--sequence-parallel=1"), "--sequence-parallel takes no value, found '1'");
  EXPECT_EQ(error_of("--recompute-granularity some"),
            "--recompute-granularity must be one of selective, full, found 'some'");
  EXPECT_EQ(error_of("--recompute-granularity full"),
            "--recompute-granularity full needs --recompute-method uniform or block");
  EXPECT_EQ(error_of("--optimizer-offload-fraction nan"),
            "--optimizer-offload-fraction must be a number, 0 to 1, found 'nan'");
  EXPECT_EQ(error_of("--bf16 --fp16"), "--bf16 and --fp16 exclude each other; keep one");
  EXPECT_EQ(error_of("--lr '1"), "Megatron flags: the quote ' is never closed");
}

TEST(ImportMegatron, ImpossibleCombinationsNameTheFlag) {
  EXPECT_EQ(error_of("--tensor-model-parallel-size 3"),
            "--tensor-model-parallel-size 3 times --pipeline-model-parallel-size 2 does not divide the 8 devices of "
            "l4-1x8");
  EXPECT_EQ(error_of("--num-layers 32"), "--num-layers 32 differs from 24 of the model; change the flag or the input");
  EXPECT_EQ(error_of("--global-batch-size 64"),
            "--global-batch-size 64 differs from 32 of the requested batch; change the flag or the input");
  EXPECT_EQ(error_of("--context-parallel-size 2"),
            "--context-parallel-size 2: plans have no such dimension; only 1 can be priced");
  EXPECT_EQ(error_of("--micro-batch-size 3"),
            "--micro-batch-size 3 times 4 data-parallel replicas does not divide the batch of 32");
  EXPECT_EQ(
      import_error("--micro-batch-size 1 --pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 24"),
      "--decoder-first-pipeline-num-layers and --decoder-last-pipeline-num-layers leave 0 layers for 1 stages, "
      "which do not divide");
}

TEST(ImportMegatron, BadLayoutsAreExplained) {
  const auto error = [](const std::string& layout) {
    return error_of("--pipeline-model-parallel-layout '" + layout + "'");
  };
  const std::string flag = "--pipeline-model-parallel-layout ";
  EXPECT_EQ(error("Et*12|t*11L"), flag + "'Et*12|t*11L' has 23 layers, the model 24");
  EXPECT_EQ(error("Et*24L"), flag + "'Et*24L': 1 parts do not divide over 2 stages");
  EXPECT_EQ(error("Et*12|m*12L"), flag + "'Et*12|m*12L': expected E, then t and |, then L, found 'm'");
  EXPECT_EQ(error("t*12|t*12L"), flag + "'t*12|t*12L': expected E, then t and |, then L, found 't'");
  EXPECT_EQ(error("E(t*12|t*12L"), flag + "'E(t*12|t*12L': the group at position 1 is not closed or holds another");
  EXPECT_EQ(error("Et*x|tL"), flag + "'Et*x|tL': expected a number from 1 behind '*' at position 2");
  EXPECT_EQ(error("E(t*200000)*200000L"), flag + "'E(t*200000)*200000L': more than 100000 layers");
  EXPECT_EQ(error("Et*23|tL --num-virtual-stages-per-pipeline-rank 2").substr(0, 40),
            (flag + "'Et*23|tL").substr(0, 40));
  EXPECT_EQ(error("Et*6|t*5|t*6|t*7L"),
            flag +
                "'Et*6|t*5|t*6|t*7L': part 3 has 7 layers; a plan needs at least one, and as many as the first part "
                "of its stage (5)");
}

class RoundTrip : public ::testing::TestWithParam<int> {};

TEST_P(RoundTrip, ExportedPlansComeBackAsTheyWere) {
  std::vector<TrainPlan> plans(6, sample_plan({12, 12}, 2, 2, 1, 8));
  for (Stage& stage : plans[1].stages) {
    stage.policy.zero = 3;
    stage.policy.sequence_parallel = true;
    stage.policy.optimizer_offload = 0.3;
    stage.checkpointed = 7;
  }
  plans[2] = sample_plan({6, 7, 5, 6}, 2, 1, 2, 8);
  for (Stage& stage : plans[2].stages) stage.checkpointed = stage.layers;
  plans[3] = sample_plan({24}, 8, 1, 4, 1);
  plans[3].stages[0].policy.activation_offload = 5.0 / 24;
  plans[3].stages[0].policy.zero = 0;
  plans[3].dtype = "fp32";
  plans[3].flash_attention = false;
  plans[4].schedule = Schedule::kInterleaved;
  plans[4].chunks = 3;
  plans[4].dtype = "bf16";
  for (Stage& stage : plans[4].stages) stage.checkpointed = 6;
  plans[5] = sample_plan({10, 14}, 4, 1, 2, 4);
  plans[5].schedule = Schedule::kInterleaved;
  plans[5].chunks = 2;
  for (Stage& stage : plans[5].stages) stage.policy.zero = 2;
  const TrainPlan& plan = plans[static_cast<std::size_t>(GetParam())];
  const Export exported = export_plan(plan, sample_gpt(), sample_cluster(1, 8), "megatron");
  EXPECT_EQ(exported.cannot_express, std::vector<std::string>{});
  TrainPlan base = request();
  base.global_batch = plan.global_batch;
  base.cluster = plan.cluster;
  base.dtype = plan.dtype == "fp32" ? "fp32" : "other";
  EXPECT_EQ(plan_from_megatron(exported.text, base, sample_gpt(), sample_cluster(1, 8), nullptr), plan)
      << exported.text;
}

INSTANTIATE_TEST_SUITE_P(Plans, RoundTrip, ::testing::Range(0, 6));

}  // namespace
}  // namespace gantry::plan
