#pragma once
// The knobs of one pipeline stage (Mist, EuroSys '25, table 2, and Gantry's own).
#include <cstdint>
#include <string_view>

#include "gantry/spec/memory_modes.h"

namespace gantry::cost {

/// Devices of a stage: `per_node` on each of `nodes` nodes.
struct Mesh {
  int nodes = 1;
  int per_node = 1;
  int devices() const { return nodes * per_node; }
  bool operator==(const Mesh&) const = default;
};

/// What the layers of a stage keep for backward where they are not checkpointed (docs/layers.md).
enum class LayerMode : std::uint8_t {
  kStore,      ///< stock layers
  kInPlace,    ///< Tempo's in-place activation and norms
  kRecompute,  ///< in-place norms; the activation's output made again in backward
  kRerunMlp,   ///< as kRecompute, and the MLP keeps its input only: its first product runs again
  kRerun,      ///< as kRerunMlp, and so does attention: projections and flash attention run again
};
inline constexpr int kLayerModes = 5;
std::string_view layer_mode_name(LayerMode mode);  ///< "store", "in_place", "recompute", "rerun_mlp", "rerun"

/// What the layers of a stage in that mode are set to (checkpointed ones: those of checkpointed_mode). Without flash
/// attention the score matrices are held, and kRerun is an InputError.
spec::LayerMemory layer_memory(LayerMode mode, bool flash_attention);

/// Mode of the checkpointed layers of a stage: their forward runs again as a whole, so none reruns its parts besides.
inline LayerMode checkpointed_mode(LayerMode mode) {
  return mode > LayerMode::kRecompute ? LayerMode::kRecompute : mode;
}

struct Policy {
  int micro_batch = 1;  ///< sequences of one model replica in a micro-batch
  int data_parallel = 1;
  int tensor_parallel = 1;  ///< data_parallel * tensor_parallel devices
  int zero = 1;             ///< 0 nothing sharded, 1 optimizer, 2 and gradients, 3 and weights
  // Fractions kept in host memory, 0 to 1.
  double weight_offload = 0;
  double gradient_offload = 0;
  double optimizer_offload = 0;
  double activation_offload = 0;
  LayerMode mode = LayerMode::kStore;
  bool sequence_parallel = false;  ///< norms, dropout and residuals split over the tensor-parallel ranks

  bool operator==(const Policy&) const = default;
};

}  // namespace gantry::cost
