#pragma once
// Learning rate by step: linear warm-up, then constant, linear or cosine decay.
#include <cstdint>
#include <string>

namespace gantry::train {

enum class Decay { kConstant, kLinear, kCosine };

/// "constant", "linear", "cosine"; InputError otherwise.
Decay parse_decay(const std::string& name);

struct Schedule {
  double peak = 1e-4;
  Decay decay = Decay::kCosine;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
  double final_ratio = 0.1;  ///< rate at the last step, as a share of the peak

  /// Rate of step 0, 1, ... total_steps - 1. Warm-up rises from peak / warmup_steps.
  double at(std::int64_t step) const;
};

}  // namespace gantry::train
