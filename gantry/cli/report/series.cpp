#include "gantry/cli/report/series.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>

namespace gantry::cli::report {
namespace {

constexpr std::size_t kKeptPerStretch = 5;  // first, last, lowest, highest, one gap

void keep_stretch(std::span<const Point> stretch, std::vector<Point>& out) {
  constexpr auto kNone = std::numeric_limits<std::size_t>::max();
  std::size_t lowest = kNone, highest = kNone, gap = kNone;
  for (std::size_t index = 0; index < stretch.size(); ++index) {
    const double y = stretch[index].y;
    if (!std::isfinite(y)) {
      gap = std::min(gap, index);
      continue;
    }
    if (lowest == kNone || y < stretch[lowest].y) lowest = index;
    if (highest == kNone || y > stretch[highest].y) highest = index;
  }
  std::array<std::size_t, kKeptPerStretch> kept{0, stretch.size() - 1, lowest, highest, gap};
  std::sort(kept.begin(), kept.end());
  const auto end = std::unique(kept.begin(), kept.end());
  for (auto index = kept.begin(); index != end && *index != kNone; ++index) out.push_back(stretch[*index]);
}

/// An average and how much of a full window it has seen, 0 to 1.
struct Average {
  double sum = 0;
  double mass = 0;
};

/// Exponential average of each point and those before it.
template <class Input, class Output>
void average_past(Input begin, Input end, Output out, double weight) {
  Average average;
  for (; begin != end; ++begin, ++out) {
    average.sum += weight * (begin->y - average.sum);
    average.mass += weight * (1 - average.mass);
    *out = average;
  }
}

}  // namespace

std::vector<Point> downsample(std::span<const Point> points, std::size_t max_points) {
  if (points.size() <= max_points) return {points.begin(), points.end()};
  const std::size_t stretches = std::max<std::size_t>(1, max_points / kKeptPerStretch);
  std::vector<Point> out;
  out.reserve(stretches * kKeptPerStretch);
  for (std::size_t index = 0; index < stretches; ++index) {
    const std::size_t begin = index * points.size() / stretches;
    const std::size_t end = (index + 1) * points.size() / stretches;
    keep_stretch(points.subspan(begin, end - begin), out);
  }
  return out;
}

std::vector<Point> smooth(std::span<const Point> points, double window) {
  std::vector<Point> out;
  std::copy_if(points.begin(), points.end(), std::back_inserter(out),
               [](const Point& p) { return std::isfinite(p.y); });
  const double weight = 2 / (std::max(1.0, window) + 1);
  std::vector<Average> forward(out.size());
  average_past(out.begin(), out.end(), forward.begin(), weight);
  std::vector<Average> backward(out.size());
  average_past(out.rbegin(), out.rend(), backward.rbegin(), weight);
  for (std::size_t index = 0; index < out.size(); ++index) {
    const auto& [past, past_mass] = forward[index];
    const auto& [future, future_mass] = backward[index];
    out[index].y = (past + future) / (past_mass + future_mass);
  }
  return out;
}

double smoothing_window(std::size_t count) {
  return count < 30 ? 1 : std::clamp(static_cast<double>(count) / 20, 5.0, 200.0);
}

double quantile(std::vector<double> values, double fraction) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double place = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), below, values.end());
  const double rest = place - std::floor(place);
  if (rest == 0) return *below;
  return *below + rest * (*std::min_element(below + 1, values.end()) - *below);
}

}  // namespace gantry::cli::report
