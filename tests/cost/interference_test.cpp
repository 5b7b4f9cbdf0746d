#include "gantry/cost/interference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/random.h"

namespace gantry::cost {
namespace {

constexpr int kCases = 2000;

Factors some_factors(base::CounterRandom& random) {
  Factors factors;
  for (double& f : factors.f) f = 1.0 + 4.0 * random.uniform() * random.uniform();
  return factors;
}

/// Factors that never fall as more channels are busy.
Factors growing_factors(base::CounterRandom& random) {
  Factors factors = some_factors(random);
  for (auto set = kFactorSets.rbegin(); set != kFactorSets.rend(); ++set) {  // pairs first
    for (int c = 0; c < kChannels; ++c) {
      const int index = factor_index(*set, c);
      if (index < 0) continue;
      for (int other = 0; other < kChannels; ++other) {
        if (other == c || (*set >> other & 1) == 0) continue;
        factors.f[index] = std::max(factors.f[index], slowdown(factors, *set & ~(1u << other), c));
      }
    }
  }
  return factors;
}

ChannelTimes random_times(base::CounterRandom& random) {
  ChannelTimes x{};
  for (double& seconds : x) seconds = random.below(3) == 0 ? 0.0 : 0.1 * random.uniform();
  return x;
}

/// The model as an event simulation: every channel runs at the speed of the present busy set until the next one ends.
double simulate(const ChannelTimes& alone_s, const Factors& factors) {
  std::vector<double> left(alone_s.begin(), alone_s.end());
  std::vector<bool> done(kChannels);
  for (int c = 0; c < kChannels; ++c) done[c] = left[c] <= 0;
  double now = 0;
  while (std::ranges::count(done, false) > 0) {
    unsigned busy = 0;
    for (int c = 0; c < kChannels; ++c) busy |= done[c] ? 0u : 1u << c;
    int next = -1;
    double next_end = std::numeric_limits<double>::infinity();
    for (int c = 0; c < kChannels; ++c) {
      if (done[c] || left[c] * slowdown(factors, busy, c) >= next_end) continue;
      next = c;
      next_end = left[c] * slowdown(factors, busy, c);
    }
    for (int c = 0; c < kChannels; ++c) left[c] -= done[c] ? 0.0 : next_end / slowdown(factors, busy, c);
    done[next] = true;
    now += next_end;
  }
  return now;
}

TEST(Interference, FactorsFollowTheDocumentedOrder) {
  EXPECT_EQ(factor_index(0b1111, 0), 0);
  EXPECT_EQ(factor_index(0b1111, 3), 3);
  EXPECT_EQ(factor_index(0b0111, 2), 6);   // H of CGH
  EXPECT_EQ(factor_index(0b1011, 3), 9);   // O of CGO
  EXPECT_EQ(factor_index(0b1101, 0), 10);  // C of CHO
  EXPECT_EQ(factor_index(0b1110, 1), 13);  // G of GHO
  EXPECT_EQ(factor_index(0b0011, 0), 16);  // C of CG
  EXPECT_EQ(factor_index(0b1100, 3), 27);  // O of HO
  EXPECT_EQ(factor_index(0b0011, 2), -1);  // idle
  EXPECT_EQ(factor_index(0b0100, 2), -1);  // alone
  std::set<int> seen;
  for (unsigned set = 0; set < 16; ++set) {
    for (int c = 0; c < kChannels; ++c) seen.insert(factor_index(set, c));
  }
  EXPECT_EQ(seen.size(), kFactorCount + 1u);  // every factor once, and -1
}

TEST(Interference, GoldenTimesOfComputeAndCollective) {
  Factors factors;  // "L4 plan", set CG; no other set can become busy
  factors.f[factor_index(0b0011, 0)] = 1.1676;
  const double forward_s = 0.052350055, backward_s = 0.102215987;
  EXPECT_NEAR(overlap_s({forward_s, 0.015917351, 0, 0}, factors), 0.054634868, 1e-9);
  EXPECT_NEAR(overlap_s({backward_s + forward_s, 0.017509086, 0, 0}, factors), 0.157079337, 1e-9);
}

TEST(Interference, WorkedExampleOfThreeChannels) {
  Factors factors;
  factors.f[factor_index(0b0111, 0)] = 2.0;  // CGH
  factors.f[factor_index(0b0111, 1)] = 4.0;
  factors.f[factor_index(0b0111, 2)] = 1.5;
  factors.f[factor_index(0b0011, 1)] = 3.0;  // CG
  // H ends after 1.5 s: C has 3 - 0.75 left, G 1 - 0.375. Then G ends after 1.875 s: C has 0.375 left and runs alone.
  EXPECT_DOUBLE_EQ(overlap_s({3, 1, 1, 0}, factors), 1.5 + 1.875 + 0.375);
}

TEST(Interference, EqualsAFluidEventSimulation) {
  base::CounterRandom random(11);
  for (int i = 0; i < kCases; ++i) {
    const Factors factors = some_factors(random);
    const ChannelTimes x = random_times(random);
    EXPECT_NEAR(overlap_s(x, factors), simulate(x, factors), 1e-7);  // channels under 10 ns count as done
  }
}

TEST(Interference, WithoutSlowdownTheLongestChannelDecides) {
  base::CounterRandom random(12);
  for (int i = 0; i < kCases; ++i) {
    const ChannelTimes x = random_times(random);
    EXPECT_NEAR(overlap_s(x, Factors()), std::ranges::max(x), 1e-12);
  }
}

TEST(Interference, NeverFasterThanTheLongestChannelAndUnchangedWhenAlone) {
  base::CounterRandom random(13);
  for (int i = 0; i < kCases; ++i) {
    const Factors factors = some_factors(random);
    const ChannelTimes x = random_times(random);
    EXPECT_GE(overlap_s(x, factors), std::ranges::max(x) * (1 - 1e-12));
    for (int c = 0; c < kChannels; ++c) {
      ChannelTimes alone{};
      alone[c] = x[c];
      EXPECT_EQ(overlap_s(alone, factors), x[c]);
    }
  }
}

TEST(Interference, GrowsWithEveryTimeWhenFactorsGrowWithTheBusySet) {
  base::CounterRandom random(14);
  for (int i = 0; i < kCases; ++i) {
    const Factors factors = growing_factors(random);
    const ChannelTimes x = random_times(random);
    ChannelTimes more = x;
    more[random.below(kChannels)] += 0.05 * random.uniform();
    EXPECT_GE(overlap_s(more, factors), overlap_s(x, factors) - 2e-8);
  }
}

TEST(Interference, ScalesWithTheTimes) {
  base::CounterRandom random(15);
  for (int i = 0; i < kCases; ++i) {
    const Factors factors = some_factors(random);
    ChannelTimes x = random_times(random);
    const double base_s = overlap_s(x, factors);
    for (double& seconds : x) seconds *= 8;
    EXPECT_NEAR(overlap_s(x, factors), 8 * base_s, 1e-6);
  }
}

TEST(Interference, TheOrderOfChannelsDoesNotMatter) {
  base::CounterRandom random(16);
  for (int i = 0; i < kCases; ++i) {
    const Factors factors = some_factors(random);
    const ChannelTimes x = random_times(random);
    std::array<int, kChannels> order = {0, 1, 2, 3};
    for (std::size_t c = kChannels; c > 1; --c) std::swap(order[c - 1], order[random.below(c)]);
    ChannelTimes permuted_x{};
    Factors permuted;
    for (int c = 0; c < kChannels; ++c) permuted_x[order[c]] = x[c];
    for (const unsigned set : kFactorSets) {
      unsigned image = 0;
      for (int c = 0; c < kChannels; ++c) image |= (set >> c & 1) << order[c];
      for (int c = 0; c < kChannels; ++c) {
        if ((set >> c & 1) != 0) permuted.f[factor_index(image, order[c])] = slowdown(factors, set, c);
      }
    }
    EXPECT_NEAR(overlap_s(permuted_x, permuted), overlap_s(x, factors), 1e-12);
  }
}

TEST(Interference, ManyRowsEqualSingleRowsBitByBit) {
  base::CounterRandom random(17);
  for (const std::size_t rows : {0u, 1u, 31u, 32u, 33u, 5000u}) {
    const Factors factors = some_factors(random);
    std::vector<ChannelTimes> x(rows);
    for (auto& row : x) row = random_times(random);
    if (rows > 20) {
      x[3] = {0.01, 0.01, 0.01, 0.01};  // ties
      x[4] = {5e-9, 0.02, 0, 9e-9};     // under the threshold
      x[5] = {1e6, 2e6, 1e-3, 3e6};     // what rounding leaves is above the threshold
    }
    std::vector<double> together(rows);
    overlap_s(x, factors, together);
    for (std::size_t i = 0; i < rows; ++i) EXPECT_EQ(together[i], overlap_s(x[i], factors)) << i;
  }
}

TEST(Interference, RoomForTheResultsIsChecked) {
  const std::vector<ChannelTimes> x(3);
  std::vector<double> together(2);
  try {
    overlap_s(x, Factors(), together);
    FAIL();
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(), "overlap_s: 3 rows but room for 2 results");
  }
}

TEST(Interference, MeanRelativeErrorAveragesOverSamples) {
  std::vector<OverlapSample> samples(2);
  samples[0] = {.alone_s = {1, 2, 0, 0}, .together_s = 2};  // exact without slowdown
  samples[1] = {.alone_s = {1, 3, 0, 0}, .together_s = 4};  // 1/4 short
  EXPECT_DOUBLE_EQ(mean_relative_error(samples, Factors()), 0.125);
  EXPECT_EQ(mean_relative_error({}, Factors()), 0);
}

TEST(Interference, ChannelsHaveDistinctNames) {
  std::set<std::string_view> names;
  for (int c = 0; c < kChannels; ++c) names.insert(channel_name(static_cast<Channel>(c)));
  EXPECT_EQ(names, (std::set<std::string_view>{"compute", "collective", "copy_in", "copy_out"}));
}

}  // namespace
}  // namespace gantry::cost
