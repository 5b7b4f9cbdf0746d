#include "gantry/cli/planner/bench_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "gantry/base/check.h"
#include "gantry/cli/planner/bench_output.h"
#include "gantry/cli/planner/bench_plan_growth.h"
#include "gantry/cli/planner/bench_plan_ladder.h"

namespace gantry::cli::planner {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string printed(const PlanBenchOptions& options) {
  testing::internal::CaptureStdout();
  bench_plan(options);
  return testing::internal::GetCapturedStdout();
}

TEST(BenchPlan, GoldenRowAsJson) {
  PlanBenchOptions options;
  options.row = {"golden_2"};
  options.json = true;
  const std::string text = printed(options);
  const base::Json row = base::parse_json(text.substr(0, text.find('\n')), "output");
  EXPECT_EQ(row["suite"], "plan");
  EXPECT_EQ(row["row"], "golden_2");
  EXPECT_NEAR(row["ratio"].get<double>(), 1, 1e-6);
  EXPECT_EQ(text.find("golden_1"), std::string::npos);
}

TEST(BenchPlan, MarkdownPutsRowsBeforeTables) {
  PlanBenchOptions options;
  options.row = {"golden_1"};
  options.markdown = true;
  const std::string text = printed(options);
  EXPECT_EQ(text.find("| row | value | baseline | its value | ratio | runs |\n|---|---|---|---|---|---|\n"), 0u);
  EXPECT_LT(text.find("| `golden_1` |"), text.find("| peak backward, data parallel |"));
}

TEST(BenchPlan, UnknownRowIsNamed) {
  PlanBenchOptions options;
  options.row = {"golden_3"};
  try {
    bench_plan(options);
    FAIL();
  } catch (const base::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("suite plan has no row 'golden_3'; it has golden_1, "), std::string::npos);
  }
}

TEST(BenchLadder, ClustersAreNodesOfEight) {
  EXPECT_EQ(cluster_name("l4", 2), "l4-1x2");
  EXPECT_EQ(cluster_name("l4", 8), "l4-1x8");
  EXPECT_EQ(cluster_name("a100", 32), "a100-4x8");
}

TEST(BenchLadder, GeometricMeanPassesOverWhatDoesNotFit) {
  EXPECT_DOUBLE_EQ(geometric_mean({1, 4, kInfinity, NAN, 0}), 2);
  EXPECT_EQ(geometric_mean({kInfinity}), 0);
}

TEST(BenchLadder, PublishedPlanStaysWithinWhatIsPublished) {
  const plan::SearchInput input = bench_input("gpt-22b", "l4-4x8", 512, 2048);
  const plan::TrainPlan plan = published_plan(input);
  ASSERT_TRUE(plan.predicted);
  ASSERT_EQ(plan.stages.size(), 8u);
  EXPECT_EQ(plan.accumulation, 128);
  EXPECT_TRUE(plan::fits(plan, *plan::cost_model(input, plan)));
  double above = 1;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const plan::Stage& stage = plan.stages[i];
    EXPECT_EQ(stage.first_layer, static_cast<int>(6 * i));
    EXPECT_EQ(stage.layers, 6);
    EXPECT_EQ(stage.checkpointed, i < 5 ? 1 : 0);
    EXPECT_EQ(stage.mesh, (cost::Mesh{1, 4}));
    EXPECT_GE(stage.policy.optimizer_offload, .625);
    EXPECT_LE(stage.policy.activation_offload, above);
    above = stage.policy.activation_offload;
  }
  EXPECT_EQ(plan.stages.front().policy.activation_offload, .75);
  EXPECT_EQ(plan.stages.back().policy.activation_offload, 0);
  EXPECT_LE(timed_search(input, plan::named_space("mist")).iteration_s, plan.predicted->iteration_s);
}

TEST(BenchLadder, MoreKnobsAreNeverSlower) {
  const LadderCase result = run_case(rung_input("gpt", kRungs[0], "l4"), false);
  EXPECT_LE(result.mist_s, result.megatron_s);
  EXPECT_GT(result.operators[0], 0);
}

TEST(BenchGrowth, FilesHoldEveryPoint) {
  const std::vector<GrowthPoint> points = {{"layers", "mist", 24, .5, 60},    {"layers", "full", 24, 2, kInfinity},
                                           {"devices", "mist", 8, .1, 60},    {"devices", "full", 8, .4, 60},
                                           {"knobs", "parallelism", 1, 1, 3}, {"knobs", "full", 2, 9, 2}};
  EXPECT_EQ(growth_csv(points).substr(0, 86),
            "axis,space,x,search_cpu_s,iteration_s\nlayers,mist,24,0.5000,60\nlayers,full,24,2.0000,\n");
  const std::string svg = growth_svg(points);
  std::size_t circles = 0;
  for (auto at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) ++circles;
  EXPECT_EQ(circles, points.size());
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace gantry::cli::planner
