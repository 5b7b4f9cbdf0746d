#include "gantry/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "gantry/base/check.h"

namespace gantry::train {

Decay parse_decay(const std::string& name) {
  if (name == "constant") return Decay::kConstant;
  if (name == "linear") return Decay::kLinear;
  if (name == "cosine") return Decay::kCosine;
  base::fail_input("schedule '{}' is not one of constant, linear, cosine", name);
}

double Schedule::at(std::int64_t step) const {
  if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  if (decay == Decay::kConstant) return peak;
  const std::int64_t span = std::max<std::int64_t>(1, total_steps - 1 - warmup_steps);
  const double progress = std::clamp(static_cast<double>(step - warmup_steps) / static_cast<double>(span), 0.0, 1.0);
  const double shape = decay == Decay::kLinear ? 1.0 - progress : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return peak * (final_ratio + (1.0 - final_ratio) * shape);
}

}  // namespace gantry::train
