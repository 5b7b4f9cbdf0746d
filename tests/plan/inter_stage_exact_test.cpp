// inter_stage against every plan of small random instances.
#include <gtest/gtest.h>

#include "tests/plan/inter_stage_test_support.h"

namespace gantry::plan {
namespace {

using base::CounterRandom;
using testing::all_plans;
using testing::random_tables;
using testing::TableShape;

struct Instance {
  StageTables tables;
  int devices;
  Objective objective;
  InterStageOptions options;
};

Instance random_instance(CounterRandom& random) {
  static const std::vector<std::vector<int>> kMeshes = {{1}, {1, 2}, {1, 2, 2, 4}, {2, 4}, {1, 3}};
  TableShape shape;
  shape.layers = 2 + static_cast<int>(random.below(5));
  shape.max_stages = 1 + static_cast<int>(random.below(5));
  shape.points = 1 + static_cast<int>(random.below(4));
  shape.mesh_devices = kMeshes[random.below(kMeshes.size())];
  shape.holes = random.below(2) == 0 ? 0 : 0.6 * random.uniform();
  shape.keep_dominated = random.below(2) == 0;
  Instance instance{random_tables(random, shape), 1, {}, {}};
  instance.devices = shape.mesh_devices[0] * (1 + static_cast<int>(random.below(5)));
  instance.objective = {static_cast<double>(random.below(3) * random.below(20)), random.below(3) == 0 ? 0.5 : 1.0};
  instance.options.uniform_mesh = random.below(3) == 0;
  instance.options.stages = random.below(2) == 0 ? 0 : 1 + static_cast<int>(random.below(shape.max_stages));
  return instance;
}

bool same_plan(const InterStageResult& a, const InterStageResult& b) {
  return std::ranges::equal(a.stages, b.stages, [](const StageChoice& one, const StageChoice& other) {
    return one.layers == other.layers && one.mesh == other.mesh && one.point.choice == other.point.choice &&
           one.point.t_s == other.point.t_s && one.point.d_s == other.point.d_s;
  });
}

// The results cost what the first plans cost, are plans, and differ from each other.
void expect_first_of(const std::vector<InterStageResult>& plans, const std::vector<InterStageResult>& results,
                     std::size_t wanted, int seed) {
  ASSERT_EQ(results.size(), std::min(plans.size(), wanted)) << "seed " << seed;
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_NEAR(results[i].iteration_s, plans[i].iteration_s, 1e-12 * plans[i].iteration_s) << "seed " << seed;
    EXPECT_TRUE(std::ranges::any_of(plans, [&](const auto& plan) { return same_plan(plan, results[i]); }))
        << "seed " << seed << ": result " << i << " is no plan";
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(same_plan(results[i], results[j])) << "seed " << seed << ": plans " << j << " and " << i;
    }
  }
}

TEST(InterStageExact, EqualsBruteForce) {
  int feasible = 0, mixed = 0;
  for (int seed = 0; seed < 1500; ++seed) {
    CounterRandom random(seed);
    const Instance instance = random_instance(random);
    const auto plans = all_plans(instance.tables, instance.devices, instance.objective, instance.options);
    const auto results = inter_stage(instance.tables, instance.devices, instance.objective, instance.options);
    expect_first_of(plans, results, 1, seed);
    if (results.empty()) continue;
    ++feasible;
    const std::vector<StageChoice>& stages = results[0].stages;
    mixed += std::ranges::any_of(stages, [&](const StageChoice& stage) { return stage.mesh != stages[0].mesh; });
  }
  EXPECT_GE(feasible, 400);
  EXPECT_GE(mixed, 50) << "too few instances have unequal meshes in their best plan";
}

TEST(InterStageExact, RankingEqualsBruteForce) {
  int complete = 0;
  for (int seed = 0; seed < 700; ++seed) {
    CounterRandom random(10'000 + seed);
    Instance instance = random_instance(random);
    instance.options.best = 2 + static_cast<int>(random.below(9));
    const auto plans = all_plans(instance.tables, instance.devices, instance.objective, instance.options);
    const auto results = inter_stage(instance.tables, instance.devices, instance.objective, instance.options);
    expect_first_of(plans, results, static_cast<std::size_t>(instance.options.best), seed);
    complete += results.size() == static_cast<std::size_t>(instance.options.best);
  }
  EXPECT_GE(complete, 150);
}

TEST(InterStageExact, IncumbentKeepsExactlyTheCheaperPlans) {
  int cut = 0;
  for (int seed = 0; seed < 500; ++seed) {
    CounterRandom random(20'000 + seed);
    Instance instance = random_instance(random);
    auto plans = all_plans(instance.tables, instance.devices, instance.objective, instance.options);
    if (plans.empty()) continue;
    instance.options.best = 1 + static_cast<int>(random.below(4));
    const double incumbent_s = plans[random.below(std::min<std::size_t>(plans.size(), 6))].iteration_s;
    // Equal plans may differ by their rounding; which of them is below the incumbent is left open.
    const auto tied = [&](const InterStageResult& plan) {
      return plan.iteration_s < incumbent_s && plan.iteration_s > incumbent_s * (1 - 1e-12);
    };
    if (std::ranges::any_of(plans, tied)) continue;
    instance.options.incumbent_s = incumbent_s;
    cut += std::erase_if(plans, [&](const InterStageResult& plan) { return plan.iteration_s >= incumbent_s; }) > 0;
    const auto results = inter_stage(instance.tables, instance.devices, instance.objective, instance.options);
    expect_first_of(plans, results, static_cast<std::size_t>(instance.options.best), seed);
  }
  EXPECT_GE(cut, 150);
}

}  // namespace
}  // namespace gantry::plan
