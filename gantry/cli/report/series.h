#pragma once
// Curves before they are drawn: thinning and smoothing.
#include <cstddef>
#include <span>
#include <vector>

namespace gantry::cli::report {

/// A point of a curve; y is NaN where there is no value, which breaks the line.
struct Point {
  double x = 0;
  double y = 0;
};

/// At most `max_points` (10 or more) of the points, in order. First and last stay, and every stretch keeps its lowest
/// and highest value and its gaps, so that spikes survive. Points must ascend in x.
std::vector<Point> downsample(std::span<const Point> points, std::size_t max_points);

/// Exponential average over about `window` points before and as many after each, so that the curve does not lag. Points
/// without a finite y are passed over.
std::vector<Point> smooth(std::span<const Point> points, double window);

/// The window that suits a curve of `count` points: none (1) for short ones, up to 200 points.
double smoothing_window(std::size_t count);

/// The value below which `fraction` of the finite values lie (0.5: the median), interpolated; NaN if there is none.
double quantile(std::vector<double> values, double fraction);

}  // namespace gantry::cli::report
