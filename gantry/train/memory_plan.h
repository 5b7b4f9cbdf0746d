#pragma once
// Chooses what each layer keeps for its backward pass, so that a step fits a memory budget in the least time. Every
// mode is measured on a layer of the model's shape; nothing is assumed about the machine.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/spec/config.h"

namespace gantry::train {

/// Modes of a whole layer, measured.
struct ModeCost {
  layers::LayerMemory memory;
  std::int64_t saved_bytes;  ///< that a layer keeps from its forward to its backward pass
  double milliseconds;       ///< forward and backward of a layer, median
};

/// The exact modes worth choosing from, measured on layers of `config` with hidden states [batch, tokens, hidden] of
/// `type`, in interleaved rounds. base::Interrupted after SIGINT.
std::vector<ModeCost> measure_modes(const spec::ModelConfig& config, std::int64_t batch, std::int64_t tokens,
                                    at::ScalarType type);

/// The lower convex hull of (milliseconds, saved_bytes), fastest first: no mode of it is worse than a mixture of two
/// others.
std::vector<ModeCost> pareto_modes(std::vector<ModeCost> costs);

struct MemoryPlan {
  std::vector<layers::LayerMemory> layers;
  std::optional<std::uint64_t> peak_bytes;  ///< measured with these modes; empty: not run, or memory ran out
  std::uint64_t least_bytes = 0;            ///< that a step takes with any choice: at rest, and what layers keep
  bool fits = false;                        ///< the measured peak is within the budget
  std::vector<ModeCost> hull;               ///< what was chosen from
  std::vector<std::int64_t> used;           ///< layers in each mode of the hull
};

/// What bounds a choice of modes.
struct MemoryBudget {
  std::uint64_t bytes;           ///< most that the process may hold
  std::uint64_t rest_bytes = 0;  ///< that it holds between steps
};

/// Peak bytes of a step with these modes, measured; nothing when memory ran out.
using PeakMeasure = std::function<std::optional<std::uint64_t>(const std::vector<layers::LayerMemory>&)>;

/// Starts all layers in the hull's first mode and moves on, layer by layer, in the order of most bytes a millisecond,
/// until the measured peak is within the budget. Choices whose layers keep more than the budget leaves are not run.
/// Where none fits, the plan is that of the fewest bytes.
MemoryPlan fit_memory(const std::vector<ModeCost>& costs, std::int64_t num_layers, const MemoryBudget& budget,
                      const PeakMeasure& peak);

/// Nothing for a plan that fits; InfeasibleError that tells the least peak and what to do.
void require_fit(const MemoryPlan& plan, std::uint64_t budget_bytes, std::string_view advice);

/// [{"attention": "rerun", "mlp": "recompute", "norm": "in-place", "layers": 12}, ...]: the modes in use.
base::OrderedJson used_modes_to_json(const MemoryPlan& plan);

/// [{"attention": "rerun", "mlp": "recompute", "norm": "in-place"}, ...], a layer each, for metrics and checkpoints.
base::OrderedJson memory_to_json(const std::vector<layers::LayerMemory>& layers);
/// The inverse; InputError naming `source`.
std::vector<layers::LayerMemory> memory_from_json(const base::Json& json, std::string_view source);

/// A table of the plan: modes, bytes and milliseconds a layer, layers.
std::string describe(const MemoryPlan& plan);

}  // namespace gantry::train
