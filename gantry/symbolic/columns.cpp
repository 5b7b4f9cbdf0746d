#include <algorithm>

#include "gantry/symbolic/program.h"

namespace gantry::symbolic {

std::span<double> Columns::column(std::string_view name) {
  const auto found = std::ranges::find(names_, name);
  if (found != names_.end()) return std::span(values_[static_cast<std::size_t>(found - names_.begin())]).first(rows_);
  names_.emplace_back(name);
  // At least one element: a column of no rows has an address too.
  return std::span(values_.emplace_back(std::max<std::size_t>(rows_, 1), 0.0)).first(rows_);
}

const double* Columns::find(std::string_view name) const {
  const auto found = std::ranges::find(names_, name);
  return found == names_.end() ? nullptr : values_[static_cast<std::size_t>(found - names_.begin())].data();
}

}  // namespace gantry::symbolic
