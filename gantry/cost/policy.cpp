#include "gantry/cost/policy.h"

#include "gantry/base/check.h"

namespace gantry::cost {

std::string_view layer_mode_name(LayerMode mode) {
  switch (mode) {
    case LayerMode::kStore: return "store";
    case LayerMode::kInPlace: return "in_place";
    case LayerMode::kRecompute: return "recompute";
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::cost
