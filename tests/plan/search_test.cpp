// What holds of every search: plans fit, are sound, are priced as evaluate() prices them; more choice or memory never
// makes them slower.
#include "gantry/plan/search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "gantry/plan/verify.h"
#include "tests/plan/search_support.h"
#include "tests/test_support.h"

namespace gantry::plan {
namespace {

using testing::search_input;

SearchOptions options_for(SearchSpace space, int best = 1) {
  SearchOptions options;
  options.space = std::move(space);
  options.space.refine_offload = false;
  options.least_bad = false;
  options.best = best;
  return options;
}

double best_s(const SearchInput& input, const SearchSpace& space) {
  const SearchResult result = search(input, options_for(space));
  return result.feasible() ? result.ranked.front().predicted->iteration_s : INFINITY;
}

// Not the largest space: a second or more each.
SearchSpace quick_space() {
  SearchSpace space = named_space("mist");
  space.gradients = space.weights = {0};
  space.optimizer = space.activations = {0, .5, 1};
  return space;
}

struct Rung {
  const char* model;
  const char* cluster;
  int batch;
};

class Ladder : public ::testing::TestWithParam<Rung> {};
INSTANTIATE_TEST_SUITE_P(Models, Ladder,
                         ::testing::Values(Rung{"gpt-1.3b", "l4-1x2", 32}, Rung{"llama-1.3b", "l4-1x2", 16},
                                           Rung{"gpt-2.7b", "l4-1x4", 64}, Rung{"llama-2.7b", "a100-2x2", 32}),
                         [](const auto& info) {
                           std::string name = std::string(info.param.model) + "_" + info.param.cluster;
                           std::ranges::replace_if(
                               name, [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST_P(Ladder, MoreKnobsNeverMakeAPlanSlower) {
  const SearchInput input = search_input(GetParam().model, GetParam().cluster, GetParam().batch);
  double before = INFINITY;
  std::string name = "nothing";
  for (const SearchSpace& space : ablation_spaces()) {
    const double seconds = best_s(input, space);
    EXPECT_LE(seconds, before * (1 + 1e-9)) << space.name << " after " << name;
    before = seconds;
    name = space.name;
  }
  EXPECT_TRUE(std::isfinite(before));
  // Of the named spaces, full holds all.
  for (const char* other : {"megatron", "deepspeed", "aceso", "mist"}) {
    EXPECT_LE(before, best_s(input, named_space(other)) * (1 + 1e-9)) << other;
  }
}

TEST_P(Ladder, PlansFitAndArePricedAsEvaluateDoes) {
  const SearchInput input = search_input(GetParam().model, GetParam().cluster, GetParam().batch);
  SearchOptions options = options_for(quick_space(), 3);
  options.space.refine_offload = true;
  const SearchResult result = search(input, options);
  ASSERT_TRUE(result.feasible());
  EXPECT_LE(result.ranked.size(), 3u);
  double before = 0;
  for (const TrainPlan& plan : result.ranked) {
    EXPECT_GE(plan.predicted->iteration_s, before) << "best first";
    before = plan.predicted->iteration_s;
    EXPECT_TRUE(verify(plan, input.model, input.cluster).empty());
    const auto model = cost_model(input, plan);
    EXPECT_TRUE(fits(plan, *model));
    for (const Stage& stage : plan.stages) {
      EXPECT_LE(stage.predicted->memory_forward_bytes, model->device_bytes());
      EXPECT_LE(stage.predicted->memory_backward_bytes, model->device_bytes());
      EXPECT_TRUE(!stage.policy.sequence_parallel || stage.policy.tensor_parallel > 1);
    }
    TrainPlan again = plan;
    evaluate(again, *model);
    EXPECT_EQ(again, plan);
    const double tokens = static_cast<double>(input.global_batch * input.sequence);
    EXPECT_DOUBLE_EQ(plan.predicted->tokens_per_s, tokens / plan.predicted->iteration_s);
  }
  EXPECT_EQ(search(input, options).ranked, result.ranked) << "the same input gives the same plans";
}

TEST(Search, MoreDeviceMemoryNeverMakesAPlanSlower) {
  for (const char* name : {"gpt-2.7b", "llama-2.7b"}) {
    SearchInput input = search_input(name, "l4-1x4", 32);
    double before = INFINITY;
    int feasible = 0;
    for (const double gigabytes : {6.0, 10.0, 12.0, 16.0, 24.0, 48.0, 96.0}) {
      input.cluster.device_memory_bytes = static_cast<std::uint64_t>(gigabytes * 1e9);
      const double seconds = best_s(input, quick_space());
      EXPECT_LE(seconds, before * (1 + 1e-9)) << name << " with " << gigabytes << " GB";
      feasible += std::isfinite(seconds) ? 1 : 0;
      before = seconds;
    }
    EXPECT_GE(feasible, 4);
  }
}

TEST(Search, HostMemoryLimitsWhatIsOffloaded) {
  SearchInput input = search_input("gpt-1.3b", "l4-1x2", 32);
  input.cluster.device_memory_bytes = 11'000'000'000;
  const SearchResult free = search(input, options_for(quick_space()));
  ASSERT_TRUE(free.feasible());
  double host = 0;
  for (const Stage& stage : free.ranked[0].stages) host = std::max(host, stage.predicted->host_bytes);
  ASSERT_GT(host, 0) << "the plan offloads";
  input.cluster.host_memory_bytes = static_cast<std::uint64_t>(host);  // half of it for each of two devices
  const SearchResult tight = search(input, options_for(quick_space()));
  ASSERT_TRUE(tight.feasible());
  for (const Stage& stage : tight.ranked[0].stages) EXPECT_LE(stage.predicted->host_bytes, host / 2);
  EXPECT_GE(tight.ranked[0].predicted->iteration_s, free.ranked[0].predicted->iteration_s);
}

TEST(Search, RefinedOffloadIsNeverSlowerAndStillFits) {
  int refined_plans = 0;
  for (const double gigabytes : {10.0, 11.0, 13.0, 15.0}) {
    SearchInput input = search_input("gpt-2.7b", "l4-1x4", 64);
    input.cluster.device_memory_bytes = static_cast<std::uint64_t>(gigabytes * 1e9);
    SearchSpace space = quick_space();
    const SearchResult result = search(input, options_for(space));
    if (!result.feasible()) continue;
    const TrainPlan& coarse = result.ranked.front();
    const auto model = cost_model(input, coarse);
    TrainPlan refined = coarse;
    refine_offload(refined, *model);
    EXPECT_LE(refined.predicted->iteration_s, coarse.predicted->iteration_s) << gigabytes;
    EXPECT_TRUE(fits(refined, *model));
    for (std::size_t i = 0; i < coarse.stages.size(); ++i) {
      const cost::Policy& before = coarse.stages[i].policy;
      const cost::Policy& after = refined.stages[i].policy;
      EXPECT_LE(after.optimizer_offload, before.optimizer_offload);
      EXPECT_LE(after.activation_offload, before.activation_offload);
    }
    refined_plans += refined.predicted->iteration_s < coarse.predicted->iteration_s * (1 - 1e-6) ? 1 : 0;
  }
  EXPECT_GE(refined_plans, 1) << "the test has a plan that gains";
}

TEST(Search, InterleavedPlansDivideLayersAndMicroBatches) {
  SearchSpace space = quick_space();
  space.schedules = {Schedule::kInterleaved};
  space.stages = 2;
  const SearchInput input = search_input("gpt-1.3b", "a100-1x4", 32);
  const SearchResult result = search(input, options_for(space, 3));
  ASSERT_TRUE(result.feasible());
  for (const TrainPlan& plan : result.ranked) {
    EXPECT_EQ(plan.schedule, Schedule::kInterleaved);
    EXPECT_GT(plan.chunks, 1);
    EXPECT_EQ(plan.accumulation % 2, 0);
    for (const Stage& stage : plan.stages) EXPECT_EQ(stage.layers % plan.chunks, 0);
  }
}

TEST(Search, SequenceParallelismNeedsTensorParallelism) {
  SearchSpace space = quick_space();
  space.sequence_parallel = {true};
  const SearchInput input = search_input("gpt-1.3b", "a100-1x2", 16);
  const SearchResult result = search(input, options_for(space, 3));
  ASSERT_TRUE(result.feasible());
  for (const TrainPlan& plan : result.ranked) {
    for (const Stage& stage : plan.stages) EXPECT_EQ(stage.policy.tensor_parallel, 2);
  }
  space.tensor_parallel = {1};
  EXPECT_FALSE(search(input, options_for(space)).feasible());
}

TEST(Search, OneDeviceRunsOneStage) {
  SearchInput input = search_input("gpt-1.3b", "a100-1x1", 8);
  const SearchResult result = search(input, options_for(quick_space(), 3));
  ASSERT_TRUE(result.feasible());
  for (const TrainPlan& plan : result.ranked) {
    ASSERT_EQ(plan.stages.size(), 1u);
    EXPECT_EQ(plan.stages[0].ranks, std::vector<int>{0});
    EXPECT_EQ(plan.stages[0].policy.micro_batch * plan.accumulation, 8);
  }
}

TEST(Search, ABatchOfOneMicroBatchHasNoDelta) {
  SearchSpace space = quick_space();
  space.accumulation = 1;
  const SearchInput input = search_input("gpt-1.3b", "a100-1x4", 4);
  const SearchResult result = search(input, options_for(space, 3));
  ASSERT_TRUE(result.feasible());
  for (const TrainPlan& plan : result.ranked) {
    EXPECT_EQ(plan.accumulation, 1);
    // All of the first and last micro-batch is in t; embedding and head keep what they gather and reduce.
    double sum = 0;
    for (const Stage& stage : plan.stages) sum += stage.predicted->t_s;
    EXPECT_GE(plan.predicted->iteration_s, sum);
  }
}

TEST(Search, NodesOfSixDevicesAreTiled) {
  SearchInput input = search_input("gpt-1.3b", "a100-2x6", 24);
  SearchSpace space = quick_space();
  space.tensor_parallel = {1, 2, 3, 4};
  space.micro_batch_powers = false;
  const SearchResult result = search(input, options_for(space, 8));
  ASSERT_TRUE(result.feasible());
  for (const TrainPlan& plan : result.ranked) {
    EXPECT_TRUE(verify(plan, input.model, input.cluster).empty());
    for (const Stage& stage : plan.stages) EXPECT_EQ(12 % stage.mesh.devices(), 0);
  }
  // Stages of four devices would straddle nodes of six.
  space.stages = 3;
  EXPECT_FALSE(search(input, options_for(space)).feasible());
}

TEST(Search, ABatchThatNoStageShapeDividesHasNoPlan) {
  SearchSpace space = quick_space();
  space.tensor_parallel = {1};
  space.max_stages = 1;
  SearchOptions options = options_for(space);
  options.least_bad = true;
  const SearchResult result = search(search_input("gpt-1.3b", "l4-1x4", 30), options);
  EXPECT_FALSE(result.feasible());
  EXPECT_TRUE(result.least_bad.empty()) << "no memory would help";
}

TEST(Search, RefusesBatchesAndSequencesOutOfRange) {
  const auto message = [](std::int64_t batch, std::int64_t sequence) {
    return tests::input_error(
        [&] { search(search_input("gpt-1.3b", "l4-1x2", batch, sequence), options_for(named_space("megatron"))); });
  };
  EXPECT_MENTIONS(message(0, 2048), "batch 0 must be at least 1 sequence");
  EXPECT_MENTIONS(message(2'000'000, 2048), "batch 2000000 is above 1,000,000");
  EXPECT_MENTIONS(message(8, 0), "sequence length 0");
}

TEST(Search, TheArbiterDecidesAmongTheBest) {
  const SearchInput input = search_input("gpt-1.3b", "l4-1x2", 16);
  const SearchOptions options = options_for(quick_space(), 3);
  const SearchResult plain = search(input, options);
  ASSERT_GE(plain.ranked.size(), 2u);
  const SearchResult judged = search(input, options, [](const TrainPlan& plan, const cost::CostModel&) {
    return 100 - plan.predicted->iteration_s;  // the slowest first
  });
  ASSERT_EQ(judged.ranked.size(), plain.ranked.size());
  EXPECT_EQ(judged.ranked.front().stages, plain.ranked.back().stages);
  EXPECT_DOUBLE_EQ(judged.ranked.front().predicted->iteration_s, 100 - plain.ranked.back().predicted->iteration_s);
}

TEST(Search, ReportsProgressToTheEnd) {
  double last = 0;
  SearchOptions options = options_for(quick_space());
  options.progress = [&](double share) {
    EXPECT_GE(share, last);
    last = share;
  };
  search(search_input("gpt-1.3b", "l4-1x2", 16), options);
  EXPECT_DOUBLE_EQ(last, 1);
}

}  // namespace
}  // namespace gantry::plan
