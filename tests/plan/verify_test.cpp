#include "gantry/plan/verify.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "gantry/base/check.h"
#include "tests/plan/sample_plans.h"

namespace gantry::plan {
namespace {

// Two stages of a node each, dp 4 x tp 2 on the first, dp 8 on the second.
TrainPlan two_nodes() {
  TrainPlan plan = sample_plan({11, 13}, 8, 1, 2, 4);
  plan.stages[0].policy.data_parallel = 4;
  plan.stages[0].policy.tensor_parallel = 2;
  plan.stages[0].policy.micro_batch = 4;
  return plan;
}

std::vector<Issue> issues_after(const std::function<void(TrainPlan&)>& change) {
  TrainPlan plan = two_nodes();
  change(plan);
  return verify(plan, sample_gpt(), sample_cluster(2, 8));
}

// The one issue that `change` causes, as "field: message".
std::string issue_after(const std::function<void(TrainPlan&)>& change) {
  const std::vector<Issue> issues = issues_after(change);
  if (issues.size() != 1) return fmt::format("{} issues", issues.size());
  return issues[0].field + ": " + issues[0].message;
}

TEST(Verify, ASoundPlanHasNoIssues) {
  EXPECT_EQ(issue_after([](TrainPlan&) {}), "0 issues");
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              for (Stage& stage : plan.stages) stage.ranks.clear();
            }),
            "0 issues");
  EXPECT_NO_THROW(require_sound(two_nodes(), sample_gpt(), sample_cluster(2, 8)));
}

TEST(Verify, LayersCoverTheModelOnceAndInOrder) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].layers = 12; }),
            "stages[1].layers: expected to end at the model's 24 layers, found 23");
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              plan.stages[1].first_layer = 10;
              plan.stages[1].layers = 14;
            }),
            "stages[1].layers: expected to start at layer 11, where the stage before ends, found 10");
}

TEST(Verify, RerunNeedsFlashAttention) {
  const auto rerun = [](cost::LayerMode mode, bool flash) {
    return issue_after([=](TrainPlan& plan) {
      plan.flash_attention = flash;
      plan.stages[1].policy.mode = mode;
    });
  };
  EXPECT_EQ(rerun(cost::LayerMode::kRerun, true), "0 issues");
  EXPECT_EQ(rerun(cost::LayerMode::kRerunMlp, false), "0 issues");
  EXPECT_EQ(rerun(cost::LayerMode::kRerun, false),
            "stages[1].layer_mode: rerun runs flash attention again, and flash_attention is off; choose rerun_mlp");
}

TEST(Verify, MeshesCoverTheClusterOnce) {
  const TrainPlan plan = two_nodes();
  const auto issues = verify(plan, sample_gpt(), sample_cluster(3, 8));
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].field, "stages");
  EXPECT_EQ(issues[0].message, "expected meshes of all 24 devices of l4-3x8, found 16; change meshes or cluster");
}

TEST(Verify, MeshesFitTheNodes) {
  const auto issues = issues_after([](TrainPlan& plan) { plan.stages[0].mesh = {3, 1}; });
  ASSERT_FALSE(issues.empty());
  EXPECT_EQ(issues[0].field, "stages[0].mesh.nodes");
  EXPECT_EQ(issues[0].message, "expected 1 to the 2 nodes of l4-2x8, found 3");
}

TEST(Verify, ParallelDegreesMatchTheMesh) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              plan.stages[0].policy.data_parallel = 2;
              plan.stages[0].policy.micro_batch = 8;
            }),
            "stages[0].data_parallel: data_parallel 2 x tensor_parallel 2 = 4 differs from the mesh's 1 x 8 = 8 "
            "devices; change one of them");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].policy.data_parallel = 0; }),
            "stages[1].data_parallel: expected at least 1, found 0");
}

TEST(Verify, TheBatchIsTheProduct) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].policy.micro_batch = 4; }),
            "stages[1].micro_batch: micro_batch 4 x data_parallel 8 x accumulation 4 = 128 differs from global_batch "
            "64; change one of them");
  const auto issues = issues_after([](TrainPlan& plan) {
    plan.accumulation = std::numeric_limits<int>::max();
    plan.stages[0].policy.micro_batch = std::numeric_limits<int>::max();
    plan.stages[0].policy.data_parallel = std::numeric_limits<int>::max();
  });
  ASSERT_EQ(issues.size(), 3u);  // devices, and the batch of either stage
  EXPECT_NE(issues[1].message.find("= more than 2^63 differs"), std::string::npos) << issues[1].message;
}

TEST(Verify, TensorParallelismDividesTheModel) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              plan.stages[0].policy.tensor_parallel = 8;
              plan.stages[0].policy.data_parallel = 1;
              plan.stages[0].policy.micro_batch = 16;
            }),
            "0 issues");
  TrainPlan plan = two_nodes();
  spec::ModelConfig model = sample_gpt();
  model.num_heads = model.num_kv_heads = 25;
  const auto issues = verify(plan, model, sample_cluster(2, 8));
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].field, "stages[0].tensor_parallel");
  EXPECT_EQ(issues[0].message, "25 attention heads do not divide over 2 tensor-parallel ranks; choose a divisor");
  EXPECT_EQ(issue_after([](TrainPlan& p) {
              p.sequence = 2047;
              p.stages[0].policy.sequence_parallel = true;
            }),
            "stages[0].sequence_parallel: 2047 tokens do not divide over 2 tensor-parallel ranks; switch it off");
}

TEST(Verify, TensorParallelGroupsStayWithinANode) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              for (Stage& stage : plan.stages) stage.mesh = {2, 4};
              plan.stages[0].ranks = {0, 8, 1, 9, 2, 10, 3, 11};
              plan.stages[1].ranks = {4, 5, 6, 7, 12, 13, 14, 15};
            }),
            "stages[0].mesh.ranks: tensor-parallel ranks 0 and 8 are on different nodes; list the 2 ranks of a group "
            "beside each other");
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              for (Stage& stage : plan.stages) stage.mesh = {2, 4};
              plan.stages[0].ranks = {0, 1, 2, 3, 8, 9, 10, 11};
              plan.stages[1].ranks = {4, 5, 6, 7, 12, 13, 14, 15};
            }),
            "0 issues");
  const auto issues = issues_after([](TrainPlan& plan) {
    plan.stages[0].policy.tensor_parallel = 8;
    plan.stages[0].policy.data_parallel = 1;
    plan.stages[0].policy.micro_batch = 16;
    for (Stage& stage : plan.stages) {
      stage.mesh = {2, 4};
      stage.ranks.clear();
    }
  });
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].message,
            "groups of 8 do not fit evenly into the 4 devices that the mesh has on a node; choose a divisor");
}

TEST(Verify, RanksAreDistinctAndFitTheMesh) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].ranks[3] = 0; }),
            "stages[1].mesh.ranks: rank 0 is given twice; each device serves one stage");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].ranks[3] = 16; }),
            "stages[1].mesh.ranks: expected ranks 0 to 15 of l4-2x8, found 16");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].ranks.pop_back(); }),
            "stages[1].mesh.ranks: expected 8 ranks, one a device of the mesh, found 7");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].ranks.clear(); }),
            "stages: 1 of 2 stages have ranks; give them to all stages or to none");
  const auto issues =
      issues_after([](TrainPlan& plan) { std::swap(plan.stages[0].ranks[0], plan.stages[1].ranks[0]); });
  ASSERT_EQ(issues.size(), 2u);
  EXPECT_EQ(issues[0].message, "expected 8 devices on each of 1 nodes of 8 devices, found ranks on 2 nodes");
}

TEST(Verify, PolicyValuesAreInRange) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].policy.zero = 4; }),
            "stages[1].zero: expected 0, 1, 2 or 3, found 4");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].policy.weight_offload = 1.25; }),
            "stages[1].offload.weights: expected 0 to 1, found 1.25");
  EXPECT_EQ(issue_after([](TrainPlan& plan) {
              plan.stages[1].policy.activation_offload = std::numeric_limits<double>::quiet_NaN();
            }),
            "stages[1].offload.activations: expected 0 to 1, found nan");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages[1].checkpointed = 14; }),
            "stages[1].checkpointed: expected 0 to the 13 layers of the stage, found 14");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.dtype = "int8"; }),
            "dtype: expected one of fp16, bf16, fp32, found 'int8'");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.stages.clear(); }),
            "stages: expected at least one stage, found none; give one with all 24 layers");
}

TEST(Verify, InterleavingDividesLayersAndMicroBatches) {
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.chunks = 2; }),
            "chunks: expected 1 with schedule '1f1b', found 2; only 'interleaved' has chunks");
  EXPECT_EQ(issue_after([](TrainPlan& plan) { plan.schedule = Schedule::kInterleaved; }),
            "chunks: expected at least 2 with schedule 'interleaved', found 1; one chunk is '1f1b'");
  const auto interleave = [](TrainPlan& plan) {
    plan.schedule = Schedule::kInterleaved;
    plan.chunks = 2;
    plan.stages[0].layers = plan.stages[1].layers = plan.stages[1].first_layer = 12;
  };
  EXPECT_EQ(issue_after(interleave), "0 issues");
  EXPECT_EQ(issue_after([&](TrainPlan& plan) {
              interleave(plan);
              plan.accumulation = 1;
              plan.global_batch = 16;
            }),
            "accumulation: 'interleaved' needs a multiple of the 2 stages, found 1");
  const auto issues = issues_after([](TrainPlan& plan) {
    plan.schedule = Schedule::kInterleaved;
    plan.chunks = 2;
  });
  ASSERT_EQ(issues.size(), 2u);
  EXPECT_EQ(issues[0].field, "stages[0].layers");
  EXPECT_EQ(issues[0].message, "11 layers do not divide into 2 chunks; move layers or change chunks");
}

TEST(Verify, AllIssuesAreReportedAtOnce) {
  TrainPlan plan = two_nodes();
  plan.stages[0].policy.zero = -1;
  plan.stages[1].checkpointed = -2;
  try {
    require_sound(plan, sample_gpt(), sample_cluster(2, 8));
    FAIL() << "accepted";
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "the plan cannot run:\n  stages[0].zero: expected 0, 1, 2 or 3, found -1\n"
                 "  stages[1].checkpointed: expected 0 to the 13 layers of the stage, found -2");
  }
}

std::vector<std::vector<int>> assigned(const std::vector<cost::Mesh>& meshes, const cost::Cluster& cluster) {
  TrainPlan plan;
  for (const cost::Mesh& mesh : meshes) {
    plan.stages.emplace_back();
    plan.stages.back().mesh = mesh;
  }
  assign_ranks(plan, cluster);
  std::vector<std::vector<int>> ranks;
  for (const Stage& stage : plan.stages) ranks.push_back(stage.ranks);
  return ranks;
}

TEST(AssignRanks, EqualMeshesFollowEachOther) {
  EXPECT_EQ(assigned({{1, 2}, {1, 2}, {1, 2}, {1, 2}}, sample_cluster(2, 4)),
            (std::vector<std::vector<int>>{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(assigned({{2, 2}, {2, 2}}, sample_cluster(2, 4)),
            (std::vector<std::vector<int>>{{0, 1, 4, 5}, {2, 3, 6, 7}}));
}

TEST(AssignRanks, LargerMeshesAreNotCutBySmallerOnes) {
  EXPECT_EQ(assigned({{1, 2}, {1, 4}, {1, 2}}, sample_cluster(2, 4)),
            (std::vector<std::vector<int>>{{4, 5}, {0, 1, 2, 3}, {6, 7}}));
  EXPECT_EQ(assigned({{1, 1}, {2, 4}, {1, 3}}, sample_cluster(3, 4)),
            (std::vector<std::vector<int>>{{11}, {0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10}}));
}

TEST(AssignRanks, GivenRanksAreKept) {
  TrainPlan plan = sample_plan({12, 12}, 2, 1, 1, 1);
  plan.stages[0].ranks.clear();
  plan.stages[1].ranks = {1, 0};
  assign_ranks(plan, sample_cluster(1, 4));
  EXPECT_EQ(plan.stages[0].ranks, (std::vector<int>{2, 3}));
  EXPECT_EQ(plan.stages[1].ranks, (std::vector<int>{1, 0}));
}

TEST(AssignRanks, AMeshWithoutRoomIsNamed) {
  try {
    assigned({{1, 3}, {1, 3}, {1, 2}}, sample_cluster(2, 4));
    FAIL() << "accepted";
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "stages[2]: no 1 nodes of 'l4-2x4' have 2 devices left for its mesh; choose meshes that fill nodes");
  }
}

}  // namespace
}  // namespace gantry::plan
