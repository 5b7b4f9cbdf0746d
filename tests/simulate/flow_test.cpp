#include "gantry/simulate/flow.h"

#include <gtest/gtest.h>

#include "tests/simulate/sample_stages.h"

namespace gantry::simulate {
namespace {

TEST(Flow, LastsExactlyTheOverlap) {
  base::CounterRandom random(3);
  for (int trial = 0; trial < 5000; ++trial) {
    cost::Factors factors;
    for (double& factor : factors.f) factor = uniform(random, 1, 3);
    cost::ChannelTimes alone{};
    for (double& seconds : alone) {
      const auto kind = random.below(4);
      seconds = kind == 0 ? 0 : kind == 1 ? 1e-9 * random.uniform() : random.uniform();
    }
    const Flow flow(alone, factors);
    EXPECT_EQ(flow.seconds(), cost::overlap_s(alone, factors));
    double latest = 0;
    for (int c = 0; c < cost::kChannels; ++c) {
      latest = std::max(latest, flow.end_s(c));
      EXPECT_GE(flow.end_s(c) - flow.start_s(c), alone[static_cast<std::size_t>(c)] * (1 - 1e-9) - 1e-15);
    }
    EXPECT_NEAR(latest, flow.seconds(), 1e-12);
  }
}

TEST(Flow, ChannelsAdvanceAtTheRateOfTheBusySet) {
  // Compute 3 s and copies 1 s: together compute runs at 1/2, copies at 1/1.5. The copies end at 1.5, when compute has
  // done 0.75; the rest runs at full speed until 3.75.
  cost::Factors factors;
  factors.f[static_cast<std::size_t>(cost::factor_index(0b101, 0))] = 2;
  factors.f[static_cast<std::size_t>(cost::factor_index(0b101, 2))] = 1.5;
  const Flow flow({3, 0, 1, 0}, factors);
  EXPECT_DOUBLE_EQ(flow.end_s(2), 1.5);
  EXPECT_DOUBLE_EQ(flow.end_s(0), 3.75);
  EXPECT_DOUBLE_EQ(flow.time_of(0, 0.5), 1.0);
  EXPECT_DOUBLE_EQ(flow.time_of(0, 0.75), 1.5);
  EXPECT_DOUBLE_EQ(flow.time_of(0, 1.75), 2.5);
  EXPECT_DOUBLE_EQ(flow.time_of(0, 3), 3.75);
  EXPECT_DOUBLE_EQ(flow.end_s(1), 0);
}

}  // namespace
}  // namespace gantry::simulate
