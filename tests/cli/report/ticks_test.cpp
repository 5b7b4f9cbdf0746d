#include "gantry/cli/report/ticks.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>

namespace gantry::cli::report {
namespace {

using Values = std::vector<double>;

TEST(NiceTicks, AreRoundMultiplesInsideTheRange) {
  EXPECT_EQ(nice_ticks(0, 10, 5), (Values{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(nice_ticks(1, 200, 4), (Values{50, 100, 150, 200}));
  EXPECT_EQ(nice_ticks(-3, 3, 6), (Values{-3, -2, -1, 0, 1, 2, 3}));
}

TEST(NiceTicks, NeverComeCloserThanTheSmallestStep) { EXPECT_EQ(nice_ticks(1, 3, 10, 1), (Values{1, 2, 3})); }

TEST(NiceTicks, StayFewAndFiniteForExtremeRanges) {
  const std::pair<double, double> ranges[] = {{0, 0},
                                              {5, 5},
                                              {-DBL_MAX, DBL_MAX},
                                              {0, DBL_TRUE_MIN},
                                              {1e17, 1e17 + 16},
                                              {-1e-300, 1e-300},
                                              {1, 1 + DBL_EPSILON}};
  for (const auto& [low, high] : ranges) {
    const auto ticks = nice_ticks(low, high, 5);
    EXPECT_GE(ticks.size(), 1U) << low << " " << high;
    EXPECT_LE(ticks.size(), 15U) << low << " " << high;
    for (const double tick : ticks) EXPECT_TRUE(std::isfinite(tick));
  }
}

TEST(LinearAxis, BeginsAndEndsOnTicksAroundTheValues) {
  const auto axis = linear_axis(2.13, 3.78, 5);
  EXPECT_LE(axis.low, 2.13);
  EXPECT_GE(axis.high, 3.78);
  EXPECT_DOUBLE_EQ(axis.low, axis.ticks.front());
  EXPECT_DOUBLE_EQ(axis.high, axis.ticks.back());
  EXPECT_DOUBLE_EQ(axis.position(axis.low), 0);
  EXPECT_DOUBLE_EQ(axis.position(axis.high), 1);
}

TEST(LinearAxis, WidensAConstantSoThatItLiesInside) {
  const auto axis = linear_axis(7, 7, 4);
  EXPECT_LT(axis.low, 7);
  EXPECT_GT(axis.high, 7);
}

TEST(StepAxis, ShowsOneStepWithoutFractions) {
  const auto axis = step_axis(4, 4, 8);
  for (const double tick : axis.ticks) EXPECT_EQ(tick, std::round(tick));
}

TEST(LogAxis, CoversTheValuesWithOneTwoFive) {
  const auto axis = log_axis(0.3, 40, 8);
  EXPECT_LE(axis.low, 0.3);
  EXPECT_GE(axis.high, 40);
  EXPECT_EQ(axis.low, 0.2);
  EXPECT_EQ(axis.high, 50);
  EXPECT_NEAR(axis.position(std::sqrt(axis.low * axis.high)), 0.5, 1e-12);
  EXPECT_TRUE(std::isnan(axis.position(0)));
}

TEST(LogAxis, KeepsFewTicksOverManyDecades) {
  const auto axis = log_axis(1e-200, 1e200, 6);
  EXPECT_LE(axis.ticks.size(), 8U);
  EXPECT_GE(axis.ticks.size(), 3U);
  EXPECT_LE(axis.low, 1e-200);
  EXPECT_GE(axis.high, 1e200);
}

TEST(LogAxis, SpansSomethingForOneValue) {
  for (const double value : {1.0, 3.0, 1e-300, 1e300}) {
    const auto axis = log_axis(value, value, 5);
    EXPECT_LT(axis.low, axis.high) << value;
  }
}

TEST(TickLabel, IsAsShortAsTheStepAllows) {
  EXPECT_EQ(tick_label(0.25, 0.05), "0.25");
  EXPECT_EQ(tick_label(0.2, 0.2), "0.2");
  EXPECT_EQ(tick_label(0, 0.2), "0");
  EXPECT_EQ(tick_label(1200, 200), "1,200");
  EXPECT_EQ(tick_label(12500, 500), "12.5k");
  EXPECT_EQ(tick_label(3000000, 1000000), "3M");
  EXPECT_EQ(tick_label(-1500, 500), "-1,500");
  EXPECT_EQ(tick_label(5e-5, 1e-5), "5e-5");
  EXPECT_EQ(tick_label(1.25e-4, 2.5e-5), "1.25e-4");
}

}  // namespace
}  // namespace gantry::cli::report
