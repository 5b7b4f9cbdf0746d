#include <gtest/gtest.h>

#include <cmath>

#include "gantry/simulate/pipeline.h"
#include "tests/simulate/sample_stages.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

TEST(OneFOneB, EqualStagesTakeTheClosedForm) {
  base::CounterRandom random(11);
  for (int trial = 0; trial < 200; ++trial) {
    const auto stages = equal_stages(static_cast<int>(1 + random.below(8)),
                                     plain_stage(uniform(random, 0.1, 1), uniform(random, 0.1, 2)));
    const auto accumulation = static_cast<int>(1 + random.below(24));
    const Outcome outcome = run(stages, Schedule::kOneFOneB, 1, accumulation);
    const double expected = closed_form(stages, accumulation);
    EXPECT_NEAR(outcome.iteration_s, expected, 1e-9 * expected);
  }
}

TEST(OneFOneB, TwoStagesByHand) {
  // Stage 0: F0 0-1, F1 1-2, B0 6-8, F2 8-9, B1 11-13, B2 16-18.
  // Stage 1: F0 1-3, B0 3-6, F1 6-8, B1 8-11, F2 11-13, B2 13-16.
  const Outcome outcome = run({plain_stage(1, 2), plain_stage(2, 3)}, Schedule::kOneFOneB, 1, 3);
  EXPECT_NEAR(outcome.iteration_s, 18, 1e-12);
  EXPECT_NEAR(outcome.busy_s[0], 9, 1e-12);
  EXPECT_NEAR(outcome.busy_s[1], 15, 1e-12);
  EXPECT_NEAR(outcome.bubble_s[0], 9, 1e-12);
  EXPECT_NEAR(outcome.bubble_s[1], 3, 1e-12);
}

}  // namespace
}  // namespace gantry::simulate
