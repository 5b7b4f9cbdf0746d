#include "gantry/base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

namespace gantry::base {
namespace {

TEST(Random, MixMatchesSplitMix64) {
  // First outputs of SplitMix64 from state 0 and from state 1.
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1ull);
}

TEST(Random, StreamsAreFixedForever) {
  // Checkpoints and data orders depend on these; a change breaks the resumption of older runs.
  CounterRandom random(42);
  EXPECT_EQ(random.next(), 0xccf7d1667ea41d4dull);
  EXPECT_EQ(random.next(), 0xda9e4b397e1a2212ull);
  EXPECT_EQ(random.next(), 0x11e392617dcf385cull);
}

TEST(Random, PositionResumesTheStream) {
  CounterRandom whole(7);
  for (int i = 0; i < 5; ++i) whole.next();
  CounterRandom resumed(7, whole.position());
  EXPECT_EQ(resumed.next(), whole.next());
  EXPECT_NE(CounterRandom(8).next(), CounterRandom(7).next());
}

TEST(Random, UniformAndBelowStayInRangeAndAreFlat) {
  CounterRandom random(3);
  double sum = 0;
  std::array<int, 7> counts{};
  constexpr int kDraws = 70'000;
  for (int i = 0; i < kDraws; ++i) {
    const double value = random.uniform();
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    sum += value;
    ++counts.at(random.below(7));
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 7, 400);
}

TEST(Random, BelowHandlesItsExtremes) {
  CounterRandom random(5);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0u);
  constexpr std::uint64_t kLarge = (1ull << 63) + 1;
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.below(kLarge), kLarge);
}

}  // namespace
}  // namespace gantry::base
