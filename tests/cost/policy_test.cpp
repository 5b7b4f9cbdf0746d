#include "gantry/cost/policy.h"

#include <gtest/gtest.h>

#include <set>

#include "gantry/base/check.h"

namespace gantry::cost {
namespace {

TEST(Policy, LayerModesHaveDistinctNames) {
  std::set<std::string_view> names;
  for (int mode = 0; mode < kLayerModes; ++mode) names.insert(layer_mode_name(static_cast<LayerMode>(mode)));
  EXPECT_EQ(names, (std::set<std::string_view>{"store", "in_place", "recompute", "rerun_mlp", "rerun"}));
}

TEST(Policy, LayerModesAreThoseOfTheLayers) {
  using enum spec::MemoryMode;
  EXPECT_EQ(layer_memory(LayerMode::kRecompute, true), spec::LayerMemory{}) << "the layers' default";
  EXPECT_EQ(layer_memory(LayerMode::kRerun, true), (spec::LayerMemory{kRerun, kRerun, kInPlace}));
  EXPECT_EQ(layer_memory(LayerMode::kRerunMlp, false), (spec::LayerMemory{kStore, kRerun, kInPlace}));
  EXPECT_EQ(layer_memory(LayerMode::kInPlace, false), (spec::LayerMemory{kInPlace, kInPlace, kInPlace}));
  try {
    layer_memory(LayerMode::kRerun, false);
    ADD_FAILURE() << "without flash attention nothing reruns it";
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(), "layer mode rerun runs flash attention again; without it choose rerun_mlp");
  }
}

TEST(Policy, CheckpointedLayersDoNotRerunTheirParts) {
  EXPECT_EQ(checkpointed_mode(LayerMode::kRerun), LayerMode::kRecompute);
  EXPECT_EQ(checkpointed_mode(LayerMode::kRerunMlp), LayerMode::kRecompute);
  EXPECT_EQ(checkpointed_mode(LayerMode::kInPlace), LayerMode::kInPlace);
}

}  // namespace
}  // namespace gantry::cost
