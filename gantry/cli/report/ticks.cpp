#include "gantry/cli/report/ticks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "gantry/cli/report/format.h"

namespace gantry::cli::report {
namespace {

double nice_step(double span, int target) {
  const double rough = span / std::max(1, target);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double fraction = rough / power;
  if (fraction <= 1.0 + 1e-9) return power;
  if (fraction <= 2.0 + 1e-9) return 2 * power;
  if (fraction <= 5.0 + 1e-9) return 5 * power;
  return 10 * power;
}

/// Widens a range that is too small to draw.
void widen(double& low, double& high) {
  low = std::clamp(low, -kLargestValue, kLargestValue);
  high = std::clamp(high, -kLargestValue, kLargestValue);
  const double size = std::max(std::abs(low), std::abs(high));
  if (high - low > 1e-9 * size && high - low > 1e-290) return;
  const double pad = size > 1e-280 ? 0.05 * size : 1;
  low -= pad;
  high += pad;
}

std::vector<double> multiples(double low, double high, double step) {
  std::vector<double> result;
  const double first = std::ceil(low / step - 1e-6);
  const double last = std::floor(high / step + 1e-6);
  for (double index = first; index <= last; ++index) result.push_back(index * step + 0.0);  // + 0.0 turns -0 into 0
  return result;
}

/// Digits after the point that tell values `step` apart from one another.
int decimals_for(double step) {
  int decimals = 0;
  for (double scaled = step; decimals < 9 && std::abs(scaled - std::round(scaled)) > 1e-6 * scaled; scaled *= 10) {
    ++decimals;
  }
  return decimals;
}

std::string scientific(double value, double step) {
  const double power = std::pow(10.0, std::floor(std::log10(std::abs(value)) + 1e-9));
  const int digits = decimals_for(step / power);
  std::string text = fmt::format("{:.{}e}", value, digits);
  const auto e = text.find('e');
  std::string mantissa = text.substr(0, e);
  if (mantissa.find('.') != std::string::npos) {
    mantissa.erase(mantissa.find_last_not_of('0') + 1);
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  return fmt::format("{}e{}", mantissa, std::stoi(text.substr(e + 1)));
}

}  // namespace

double AxisRange::position(double value) const {
  if (!logarithmic) return (value - low) / (high - low);
  if (!(value > 0)) return std::numeric_limits<double>::quiet_NaN();
  return (std::log(value) - std::log(low)) / (std::log(high) - std::log(low));
}

std::vector<double> nice_ticks(double low, double high, int target, double min_step) {
  widen(low, high);
  double step = std::max(nice_step(high - low, target), min_step);
  std::vector<double> result = multiples(low, high, step);
  for (int finer = 0; finer < 4 && result.empty() && step > min_step; ++finer) {
    step = std::max(nice_step(step / 2, 1), min_step);
    result = multiples(low, high, step);
  }
  return result;
}

AxisRange linear_axis(double low, double high, int target) {
  widen(low, high);
  const double step = nice_step(high - low, target);
  AxisRange axis;
  axis.low = std::floor(low / step + 1e-6) * step;
  axis.high = std::ceil(high / step - 1e-6) * step;
  axis.ticks = multiples(axis.low, axis.high, step);
  return axis;
}

AxisRange step_axis(double low, double high, int target) {
  AxisRange axis;
  axis.low = low <= 0.05 * high ? std::min(low, 0.0) : low;
  axis.high = high > low ? high : low + 1;
  axis.ticks = nice_ticks(axis.low, axis.high, target, 1);
  return axis;
}

AxisRange log_axis(double low, double high, int target) {
  low = std::clamp(low, 1e-280, kLargestValue);
  high = std::clamp(high, low, kLargestValue);
  std::vector<double> candidates;
  const int first = static_cast<int>(std::floor(std::log10(low) + 1e-9));
  const int last = static_cast<int>(std::ceil(std::log10(high) - 1e-9));
  const int decades = std::max(1, last - first);
  const int stride = std::max(1, (decades + target - 1) / std::max(1, target));
  for (int exponent = first; exponent < first + decades + stride; exponent += stride) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor == 1.0 || (stride == 1 && 2 * decades <= target)) {
        candidates.push_back(factor * std::pow(10.0, exponent));
      }
    }
  }
  AxisRange axis;
  axis.logarithmic = true;
  axis.low = candidates.front();
  for (const double candidate : candidates) {
    if (candidate <= low * (1 + 1e-9)) axis.low = candidate;
  }
  axis.high = *std::find_if(candidates.begin(), candidates.end() - 1,
                            [&](double candidate) { return candidate >= high * (1 - 1e-9) && candidate > axis.low; });
  for (const double candidate : candidates) {
    if (candidate >= axis.low && candidate <= axis.high) axis.ticks.push_back(candidate);
  }
  return axis;
}

std::string tick_label(double value, double step) {
  const double size = std::abs(value);
  if (size < 1e-6 * step) return "0";
  if (size >= 1e15 || step < 1e-4) return scientific(value, step);
  for (const auto& [scale, suffix] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (size >= scale && size >= 1e4) {
      return fmt::format("{:.{}f}{}", value / scale, std::min(decimals_for(step / scale), 3), suffix);
    }
  }
  return group_digits(value, decimals_for(step));
}

std::vector<std::string> tick_labels(const AxisRange& axis) {
  std::vector<std::string> labels;
  const double step = axis.ticks.size() > 1 ? axis.ticks[1] - axis.ticks[0] : axis.high - axis.low;
  for (const double tick : axis.ticks) labels.push_back(tick_label(tick, axis.logarithmic ? tick : step));
  return labels;
}

}  // namespace gantry::cli::report
