#include "gantry/plan/inter_stage.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "gantry/base/check.h"
#include "tests/plan/inter_stage_test_support.h"
#include "tests/test_support.h"

namespace gantry::plan {
namespace {

using base::CounterRandom;
using testing::random_tables;
using testing::TableShape;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using tests::input_error;

TEST(IterationTime, IsTheFormulaOfThePaper) {
  // G = 5: 4 * max(3, 2) + (3 + 2 + 1) + max(4, 9 - 3, 5.5 - 5) = 12 + 6 + 6.
  const std::vector<StageChoice> stages = {{1, 0, {3, 4, 0}}, {1, 0, {2, 9, 0}}, {1, 0, {1, 5.5, 0}}};
  EXPECT_DOUBLE_EQ(iteration_s(stages, {4, 1}), 24);
}

TEST(IterationTime, FillScalesTheBubbleAndWhatItHides) {
  // 3.5 * 3 + 0.5 * 5 + max(4, 9 - 1.5).
  const std::vector<StageChoice> stages = {{1, 0, {3, 4, 0}}, {1, 0, {2, 9, 0}}};
  EXPECT_DOUBLE_EQ(iteration_s(stages, {3.5, 0.5}), 20.5);
}

TEST(IterationTime, NegativeExtrasAreNoGain) {
  const std::vector<StageChoice> stages = {{1, 0, {3, -4, 0}}};
  EXPECT_DOUBLE_EQ(iteration_s(stages, {1, 1}), 6);
  EXPECT_DOUBLE_EQ(iteration_s({}, {1, 1}), 0);
}

TEST(Pareto, KeepsWhatNoOtherBeatsSortedByTime) {
  std::vector<StagePoint> points = {{3, 1, 0}, {1, 5, 1}, {2, 5, 2}, {2, 3, 3}, {3, 1, 4}, {1, 6, 5}, {4, 1, 6}};
  pareto(points);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].choice, 1);
  EXPECT_EQ(points[1].choice, 3);
  EXPECT_EQ(points[2].choice, 0);
  std::vector<StagePoint> none;
  pareto(none);
  EXPECT_TRUE(none.empty());
}

TEST(StageTables, HoldsAListForEveryPlace) {
  StageTables tables(5, {1, 2, 4}, 4);
  int count = 0;
  testing::for_each_list(tables, [&](Role role, int after, int layers, int mesh) {
    EXPECT_TRUE(tables.at(role, after, layers, mesh).empty());
    tables.at(role, after, layers, mesh).push_back({1, 0, count++});
  });
  EXPECT_EQ(count, 8 * 5 * 3);
  count = 0;
  testing::for_each_list(tables, [&](Role role, int after, int layers, int mesh) {
    ASSERT_EQ(tables.at(role, after, layers, mesh).size(), 1u) << "shared by two places";
    EXPECT_EQ(tables.at(role, after, layers, mesh)[0].choice, count++);
  });
}

TEST(StageTables, RefusesPlacesThatDoNotExist) {
  StageTables tables(5, {1, 2}, 3);
  EXPECT_MENTIONS(input_error([&] { tables.at(Role::kMiddle, 0, 1, 0); }), "0 stages after it: expected 1 to 2");
  EXPECT_MENTIONS(input_error([&] { tables.at(Role::kFirst, 3, 1, 0); }), "expected 1 to 2");
  EXPECT_MENTIONS(input_error([&] { tables.at(Role::kLast, 1, 1, 0); }), "expected 0 for the last or only one");
  EXPECT_MENTIONS(input_error([&] { tables.at(Role::kOnly, 0, 6, 0); }), "6 layers: expected 1 to 5");
  EXPECT_MENTIONS(input_error([&] { tables.at(Role::kOnly, 0, 5, 2); }), "mesh shape 2: expected 0 to 1");
  EXPECT_MENTIONS(input_error([] { StageTables(0, {1}, 1); }), "expected at least 1 of each");
  EXPECT_MENTIONS(input_error([] { StageTables(1, {0}, 1); }), "a mesh of 0 devices");
  EXPECT_MENTIONS(input_error([] { StageTables(1'000'000, {1, 2}, 1'000'000); }), "too many lists");
}

TEST(InterStage, SingleStageTakesTheOnlyRole) {
  StageTables tables(4, {2}, 1);
  tables.at(Role::kOnly, 0, 4, 0) = {{2, 5, 7}, {3, 1, 8}};
  const auto one = inter_stage(tables, 2, {0, 1});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_DOUBLE_EQ(one[0].iteration_s, 4);
  EXPECT_EQ(one[0].stages[0].point.choice, 8);
  const auto many = inter_stage(tables, 2, {9, 1});
  EXPECT_DOUBLE_EQ(many[0].iteration_s, 25);
  EXPECT_EQ(many[0].stages[0].point.choice, 7) << "with many micro-batches t counts more than d";
}

TEST(InterStage, UsesRolesAndStagesAfter) {
  StageTables tables(3, {1}, 3);
  tables.at(Role::kFirst, 2, 1, 0) = {{1, 0, 10}};
  tables.at(Role::kMiddle, 1, 1, 0) = {{1, 0, 11}};
  tables.at(Role::kLast, 0, 1, 0) = {{1, 0, 12}};
  const auto plans = inter_stage(tables, 3, {0, 1});
  ASSERT_EQ(plans.size(), 1u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(plans[0].stages[i].point.choice, 10 + i);
}

TEST(InterStage, LaterStageHidesItsExtraInTheBubble) {
  StageTables tables(2, {1}, 2);
  tables.at(Role::kFirst, 1, 1, 0) = {{4, 0, 0}};
  tables.at(Role::kLast, 0, 1, 0) = {{3, 4, 1}, {3.5, 0, 2}};
  const auto plans = inter_stage(tables, 2, {0, 1});
  EXPECT_EQ(plans[0].stages[1].point.choice, 1) << "4 s of extra fit in the 4 s before";
  EXPECT_DOUBLE_EQ(plans[0].iteration_s, 7);
}

TEST(InterStage, UnequalMeshesBeatEqualOnes) {
  // Three layers on three devices, two stages: two layers on two devices and one layer on one.
  StageTables tables(3, {1, 2}, 2);
  for (int mesh = 0; mesh < 2; ++mesh) {
    for (int layers = 1; layers <= 2; ++layers) {
      tables.at(Role::kFirst, 1, layers, mesh) = {{layers / (mesh + 1.0), 0, 0}};
      tables.at(Role::kLast, 0, layers, mesh) = {{layers / (mesh + 1.0), 0, 0}};
    }
  }
  const auto plans = inter_stage(tables, 3, {10, 1});
  ASSERT_EQ(plans.size(), 1u);
  EXPECT_DOUBLE_EQ(plans[0].iteration_s, 12);
  EXPECT_TRUE(inter_stage(tables, 3, {10, 1}, {.uniform_mesh = true}).empty());
}

TEST(InterStage, InfeasibleIsAnEmptyAnswer) {
  CounterRandom random(3);
  const StageTables tables = random_tables(random, {.layers = 4, .mesh_devices = {2, 4}, .max_stages = 3});
  EXPECT_TRUE(inter_stage(tables, 7, {3, 1}).empty()) << "odd devices, even meshes";
  EXPECT_TRUE(inter_stage(tables, 100, {3, 1}).empty()) << "more devices than three stages take";
  EXPECT_TRUE(inter_stage(tables, 1, {3, 1}).empty()) << "fewer devices than a mesh";
  EXPECT_TRUE(inter_stage(StageTables(4, {1}, 4), 4, {3, 1}).empty()) << "no points";
  EXPECT_FALSE(inter_stage(tables, 8, {3, 1}).empty());
}

TEST(InterStage, MoreStagesThanLayersIsInfeasible) {
  CounterRandom random(4);
  const StageTables tables = random_tables(random, {.layers = 2, .mesh_devices = {1}, .max_stages = 5});
  EXPECT_TRUE(inter_stage(tables, 5, {3, 1}).empty());
  EXPECT_TRUE(inter_stage(tables, 3, {3, 1}, {.stages = 3}).empty());
  EXPECT_EQ(inter_stage(tables, 2, {3, 1}).size(), 1u);
}

TEST(InterStage, IncumbentIsExclusive) {
  CounterRandom random(5);
  const StageTables tables = random_tables(random, {.layers = 12, .mesh_devices = {1, 2, 4}, .max_stages = 8});
  const double best_s = inter_stage(tables, 8, {15, 1}).at(0).iteration_s;
  EXPECT_TRUE(inter_stage(tables, 8, {15, 1}, {.incumbent_s = best_s}).empty());
  const auto above = inter_stage(tables, 8, {15, 1}, {.incumbent_s = best_s * (1 + 1e-9)});
  ASSERT_EQ(above.size(), 1u);
  EXPECT_EQ(above[0].iteration_s, best_s);
  EXPECT_TRUE(inter_stage(tables, 8, {15, 1}, {.incumbent_s = 0}).empty());
  EXPECT_TRUE(inter_stage(tables, 8, {15, 1}, {.incumbent_s = -kInfinity}).empty());
}

TEST(InterStage, ZeroTimesAndZeroWeightsWork) {
  StageTables tables(2, {1}, 2);
  tables.at(Role::kFirst, 1, 1, 0) = {{0, 0, 0}};
  tables.at(Role::kLast, 0, 1, 0) = {{0, 2, 0}, {1, 0, 1}};
  EXPECT_DOUBLE_EQ(inter_stage(tables, 2, {4, 1}).at(0).iteration_s, 2);
  EXPECT_DOUBLE_EQ(inter_stage(tables, 2, {0, 0}).at(0).iteration_s, 0);
  EXPECT_EQ(inter_stage(tables, 2, {4, 1}, {.best = 5}).size(), 2u);
}

TEST(InterStage, EqualPointsCountOnce) {
  StageTables tables(2, {1}, 2);
  tables.at(Role::kFirst, 1, 1, 0) = {{1, 1, 0}};
  tables.at(Role::kLast, 0, 1, 0) = {{1, 1, 3}, {1, 1, 3}, {1, 1, 4}};
  EXPECT_EQ(inter_stage(tables, 2, {4, 1}, {.best = 5}).size(), 2u) << "choices 3 and 4";
}

TEST(InterStage, RefusesBadOptionsAndPoints) {
  StageTables tables(2, {1}, 2);
  tables.at(Role::kFirst, 1, 1, 0) = {{1, 0, 0}};
  tables.at(Role::kLast, 0, 1, 0) = {{1, 0, 0}};
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 0, {}); }), "devices = 0");
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}, {.best = 0}); }), "best = 0");
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}, {.stages = 3}); }), "stages = 3: expected 0");
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}, {.incumbent_s = std::nan("")}); }), "incumbent_s");
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {-1, 1}); }), "steady = -1");
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {1, kInfinity}); }), "fill = inf");
  tables.at(Role::kLast, 0, 1, 0) = {{-1, 0, 0}};
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}); }), "t = -1 s");
  tables.at(Role::kLast, 0, 1, 0) = {{1, std::nan(""), 0}};
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}); }), "leave points out that are infeasible");
  tables.at(Role::kLast, 0, 1, 0) = {{1, 0, 0}};
  EXPECT_MENTIONS(input_error([&] { inter_stage(tables, 2, {}, {.best = 1'000'000'000}); }), "ask for fewer plans");
}

}  // namespace
}  // namespace gantry::plan
