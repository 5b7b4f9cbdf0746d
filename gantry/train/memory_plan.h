#pragma once
// Chooses what each layer keeps for its backward pass, so that a step fits a memory budget in the least time. Every
// mode is measured on a layer of the model's shape; nothing is assumed about the machine.
#include <cstdint>
#include <functional>
#include <string>
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
/// `type`, in interleaved rounds.
std::vector<ModeCost> measure_modes(const spec::ModelConfig& config, std::int64_t batch, std::int64_t tokens,
                                    at::ScalarType type);

/// The lower convex hull of (milliseconds, saved_bytes), fastest first: no mode of it is worse than a mixture of two
/// others.
std::vector<ModeCost> pareto_modes(std::vector<ModeCost> costs);

struct MemoryPlan {
  std::vector<layers::LayerMemory> layers;
  std::uint64_t peak_bytes;        ///< measured with these modes
  std::vector<ModeCost> hull;      ///< what was chosen from
  std::vector<std::int64_t> used;  ///< layers in each mode of the hull
};

/// `peak` measures the peak bytes of a step with the modes given. Starts all layers in the hull's first mode and moves
/// on, layer by layer, in the order of most bytes a millisecond, until the measured peak is within the budget. Error
/// that tells the least peak where no choice fits.
MemoryPlan plan_memory(const std::vector<ModeCost>& costs, std::int64_t num_layers, std::uint64_t budget_bytes,
                       const std::function<std::uint64_t(const std::vector<layers::LayerMemory>&)>& peak);

/// [{"attention": "rerun", "mlp": "recompute", "norm": "in-place"}, ...], a layer each, for metrics and checkpoints.
base::OrderedJson memory_to_json(const std::vector<layers::LayerMemory>& layers);
/// The inverse; InputError naming `source`.
std::vector<layers::LayerMemory> memory_from_json(const base::Json& json, std::string_view source);

/// A table of the plan: modes, bytes and milliseconds a layer, layers.
std::string describe(const MemoryPlan& plan);

}  // namespace gantry::train
