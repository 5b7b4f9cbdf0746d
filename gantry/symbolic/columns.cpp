#include <algorithm>

#include "gantry/symbolic/program.h"

namespace gantry::symbolic {

std::span<double> Columns::column(std::string_view name) {
  const auto found = std::ranges::find(names_, name);
  if (found != names_.end()) return values_[static_cast<std::size_t>(found - names_.begin())];
  names_.emplace_back(name);
  return values_.emplace_back(rows_, 0.0);
}

const double* Columns::find(std::string_view name) const {
  const auto found = std::ranges::find(names_, name);
  return found == names_.end() ? nullptr : values_[static_cast<std::size_t>(found - names_.begin())].data();
}

}  // namespace gantry::symbolic
