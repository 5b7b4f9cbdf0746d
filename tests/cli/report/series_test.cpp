#include "gantry/cli/report/series.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace gantry::cli::report {
namespace {

std::vector<Point> noise(std::size_t count) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<Point> points;
  for (std::size_t index = 0; index < count; ++index) points.push_back({static_cast<double>(index), normal(random)});
  return points;
}

bool contains(const std::vector<Point>& points, Point wanted) {
  return std::any_of(points.begin(), points.end(), [&](const Point& p) { return p.x == wanted.x && p.y == wanted.y; });
}

TEST(Downsample, LeavesShortCurvesAlone) {
  const auto points = noise(100);
  EXPECT_EQ(downsample(points, 100).size(), 100U);
}

TEST(Downsample, KeepsEndsSpikesAndOrderWithinTheLimit) {
  auto points = noise(100'000);
  points[43'210].y = 500;
  points[77'777].y = -500;
  const auto thin = downsample(points, 400);
  EXPECT_LE(thin.size(), 400U);
  EXPECT_GT(thin.size(), 200U);
  EXPECT_TRUE(contains(thin, points.front()));
  EXPECT_TRUE(contains(thin, points.back()));
  EXPECT_TRUE(contains(thin, points[43'210]));
  EXPECT_TRUE(contains(thin, points[77'777]));
  EXPECT_TRUE(std::is_sorted(thin.begin(), thin.end(), [](const Point& a, const Point& b) { return a.x < b.x; }));
}

TEST(Downsample, KeepsGaps) {
  auto points = noise(10'000);
  points[5'123].y = NAN;
  const auto thin = downsample(points, 100);
  EXPECT_EQ(std::count_if(thin.begin(), thin.end(), [](const Point& p) { return std::isnan(p.y); }), 1);
}

TEST(Downsample, AcceptsCurvesWithoutAnyValue) {
  std::vector<Point> points(1000, Point{0, NAN});
  EXPECT_LE(downsample(points, 50).size(), 50U);
}

TEST(Smooth, KeepsAConstantFromTheFirstPointOn) {
  const std::vector<Point> points(50, Point{1, 3.5});
  for (const auto& point : smooth(points, 10)) EXPECT_DOUBLE_EQ(point.y, 3.5);
}

TEST(Smooth, ReducesNoiseAndPassesOverGaps) {
  auto points = noise(2000);
  points[1000].y = NAN;
  points[1001].y = INFINITY;
  const auto smoothed = smooth(points, 100);
  EXPECT_EQ(smoothed.size(), 1998U);
  for (std::size_t index = 200; index < smoothed.size(); ++index) EXPECT_LT(std::abs(smoothed[index].y), 0.6);
}

TEST(Smooth, DoesNotLagBehindASlope) {
  std::vector<Point> points;
  for (int index = 0; index < 1000; ++index) points.push_back({static_cast<double>(index), 2.0 * index});
  EXPECT_NEAR(smooth(points, 50)[500].y, 1000, 1e-6);
}

TEST(Quantile, InterpolatesAndIgnoresWhatIsNotFinite) {
  EXPECT_DOUBLE_EQ(quantile({5, NAN, 1, 3, INFINITY}, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 2, 3}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 2, 3}, 0), 1);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 2, 3}, 1), 4);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

}  // namespace
}  // namespace gantry::cli::report
