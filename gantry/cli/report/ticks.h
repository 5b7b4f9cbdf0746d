#pragma once
// Axes: where the ticks go and what they say.
#include <string>
#include <vector>

namespace gantry::cli::report {

/// Values beyond it, either way, are drawn as if they were it, so that high - low and what is widened stay finite.
inline constexpr double kLargestValue = 1e300;

/// The part of the number line an axis shows, with its ticks, which lie inside.
struct AxisRange {
  double low = 0;
  double high = 1;
  std::vector<double> ticks;
  bool logarithmic = false;

  /// 0 at low, 1 at high; values outside give results outside. A value that a logarithmic axis lacks gives NaN.
  double position(double value) const;
};

/// Multiples of 1, 2 or 5 x 10^k inside [low, high], about `target` of them, never closer than `min_step`. Needs finite
/// low < high; at least one multiple of a finer step is returned even where few fit.
std::vector<double> nice_ticks(double low, double high, int target, double min_step = 0);

/// A linear axis that covers the values low..high and begins and ends on ticks. Equal or tiny ranges are widened.
AxisRange linear_axis(double low, double high, int target);
/// The same over exactly low..high (steps of training) with whole ticks; from 0 if low is that near.
AxisRange step_axis(double low, double high, int target);
/// Powers of ten, with 2 and 5 between them where there is room. Needs 0 < low <= high.
AxisRange log_axis(double low, double high, int target);

/// "0.25", "1,200", "12.5k", "3M", "5e-5": as short as ticks `step` apart allow.
std::string tick_label(double value, double step);
/// Labels of all ticks of an axis.
std::vector<std::string> tick_labels(const AxisRange& axis);

}  // namespace gantry::cli::report
