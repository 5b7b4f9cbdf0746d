// The whole search against brute force: the same space, every stage priced by CostModel::price, every combination.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/random.h"
#include "tests/plan/brute_force.h"
#include "tests/plan/search_support.h"

namespace gantry::plan {
namespace {

using base::CounterRandom;

template <class T>
T pick(CounterRandom& random, const std::vector<T>& list) {
  return list[random.below(list.size())];
}

struct SearchInstance {
  SearchInput input;
  SearchSpace space;
  std::string text;
};

// At most four devices and four layers; ratios in halves or quarters.
SearchInstance random_search(std::uint64_t seed) {
  CounterRandom random(seed);
  SearchInstance instance;
  const auto [nodes, per_node] =
      pick<std::pair<int, int>>(random, {{1, 1}, {1, 2}, {1, 2}, {2, 1}, {1, 4}, {2, 2}, {2, 2}});
  const std::string profile = pick<std::string>(random, {"l4-mist", "l4", "a100-mist", "a100-40g"});
  SearchInput& input = instance.input;
  input = testing::search_input(pick<const char*>(random, {"gpt-1.3b", "llama-1.3b"}),
                                fmt::format("l4-{}x{}", nodes, per_node), pick<int>(random, {4, 8, 6, 12}),
                                pick<int>(random, {1024, 2048}));
  input.profile = cost::load_profile(profile);
  input.model.num_layers = 2 + static_cast<std::int64_t>(random.below(3));
  input.model.tied_embeddings = random.below(4) == 0;
  input.cluster.device_memory_bytes = static_cast<std::uint64_t>((2 + 8 * random.uniform()) * 1e9);
  if (random.below(4) == 0) input.cluster.host_memory_bytes = static_cast<std::uint64_t>(4e9 * random.uniform());

  SearchSpace& space = instance.space;
  space.name = "random";
  space.tensor_parallel = pick<std::vector<int>>(random, {{1}, {1, 2}, {1, 2}});
  space.micro_batch_powers = input.global_batch % 3 != 0 && random.below(2) == 0;
  space.max_micro_batch = pick<int>(random, {4, 16});
  space.zero = pick<std::vector<int>>(random, {{0, 1, 2, 3}, {1, 2, 3}, {0, 3}, {1}});
  space.checkpointing = pick<Checkpointing>(random, {Checkpointing::kTuned, Checkpointing::kTuned, Checkpointing::kNone,
                                                     Checkpointing::kAll, Checkpointing::kAllOrNothing});
  const std::vector<double> ratios{0, .5, 1};
  for (auto* list : {&space.weights, &space.gradients, &space.optimizer, &space.activations}) {
    if (random.below(2) == 0) *list = ratios;
  }
  if (random.below(2) == 0) space.optimizer = {0, .25, .5, .75, 1};
  space.zero_limits_pipeline = random.below(6) == 0;
  space.weights_need_gradients = random.below(2) == 0;
  space.mixed_stages = random.below(2) == 0;
  space.layer_window = pick<int>(random, {-1, -1, 0, 1});
  space.chunks = {2};
  if (random.below(3) == 0) space.schedules = {Schedule::kZeroBubble, Schedule::kOneFOneB};
  if (random.below(5) == 0) space.schedules = {Schedule::kInterleaved, Schedule::kZeroBubble, Schedule::kOneFOneB};
  if (random.below(4) == 0) space.sequence_parallel = {false, true};
  using enum cost::LayerMode;
  if (random.below(2) == 0) {
    space.modes = pick<std::vector<cost::LayerMode>>(random, {{kStore, kInPlace},
                                                              {kStore, kInPlace, kRecompute, kRerunMlp, kRerun},
                                                              {kStore, kInPlace, kRecompute, kRerunMlp, kRerun},
                                                              {kRerun},
                                                              {kRerunMlp, kRecompute}});
  }
  if (random.below(6) == 0) space.chunked_loss = {true, false};
  instance.text = fmt::format("seed {}: {} of {} layers, {}x{} devices of {:.2f} GB, {}, batch {}, sequence {}, {}",
                              seed, input.model_name, input.model.num_layers, nodes, per_node,
                              static_cast<double>(input.cluster.device_memory_bytes) / 1e9, profile, input.global_batch,
                              input.sequence, space.mixed_stages ? "mixed stages" : "equal stages");
  return instance;
}

TEST(SearchExactness, EqualsBruteForceOverAllPolicies) {
  int feasible = 0;
  int rerun = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    const SearchInstance instance = random_search(seed);
    SCOPED_TRACE(instance.text);
    SearchOptions options;
    options.space = instance.space;
    options.best = 1;
    options.least_bad = false;
    const SearchResult found = search(instance.input, options);
    const double best_s = testing::BruteForce(instance.input, instance.space).best_s();
    ASSERT_EQ(found.feasible(), std::isfinite(best_s));
    if (!found.feasible()) continue;
    ++feasible;
    const TrainPlan& plan = found.ranked.front();
    rerun += std::ranges::any_of(plan.stages, [](const Stage& stage) {
      return stage.policy.mode >= cost::LayerMode::kRerunMlp && stage.checkpointed < stage.layers;
    });
    EXPECT_NEAR(plan.predicted->iteration_s / best_s, 1, 1e-9)
        << plan.stages.size() << " stages, " << schedule_name(plan.schedule);
  }
  EXPECT_GE(feasible, 50);
  EXPECT_GE(rerun, 5) << "plans in which a stage runs parts of its layers again";
}

}  // namespace
}  // namespace gantry::plan
