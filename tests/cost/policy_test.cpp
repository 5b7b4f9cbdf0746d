#include "gantry/cost/policy.h"

#include <gtest/gtest.h>

#include <set>

namespace gantry::cost {
namespace {

TEST(Policy, LayerModesHaveDistinctNames) {
  std::set<std::string_view> names;
  for (int mode = 0; mode < kLayerModes; ++mode) names.insert(layer_mode_name(static_cast<LayerMode>(mode)));
  EXPECT_EQ(names, (std::set<std::string_view>{"store", "in_place", "recompute"}));
}

}  // namespace
}  // namespace gantry::cost
