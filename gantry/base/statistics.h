#pragma once
#include <algorithm>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::base {

/// The middle value, or the mean of the two middle ones; InputError for no values.
inline double median(std::vector<double> values) {
  GANTRY_CHECK(!values.empty(), "median: no values");
  std::ranges::sort(values);
  const std::size_t n = values.size();
  return (values[n / 2] + values[(n - 1) / 2]) / 2;
}

}  // namespace gantry::base
