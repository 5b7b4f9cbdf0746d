#include "gantry/plan/types.h"

#include <gtest/gtest.h>

namespace gantry::plan {
namespace {

TEST(TrainPlan, CountsTheLayersOfItsStages) {
  TrainPlan plan;
  plan.stages.resize(2);
  plan.stages[0].layers = 5;
  plan.stages[1].layers = 7;
  EXPECT_EQ(plan.num_layers(), 12);
}

TEST(Schedule, NamesAreThoseOfPlanFiles) {
  EXPECT_EQ(schedule_name(Schedule::kOneFOneB), "1f1b");
  EXPECT_EQ(schedule_name(Schedule::kInterleaved), "interleaved");
  EXPECT_EQ(schedule_name(Schedule::kZeroBubble), "zero_bubble");
}

}  // namespace
}  // namespace gantry::plan
