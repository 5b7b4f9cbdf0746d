#pragma once
// The work of one layer on the four channels in each phase (Mist, EuroSys '25, section 5.3; table of its released
// code), and what a stage's layers add up to.
#include <array>
#include <vector>

#include "gantry/cost/collectives.h"
#include "gantry/cost/sections.h"
#include "gantry/cost/stage.h"

namespace gantry::cost {

enum class Phase : std::uint8_t { kForwardFirst, kForward, kBackward, kBackwardLast };

/// Stand-alone seconds of a layer's parts under one policy. Index 0 of a pair: plain, 1: checkpointed.
struct LayerWork {
  double forward_s = 0;
  double backward_s = 0;  ///< accumulation included, recomputation not
  double rerun_s = 0;     ///< what a plain layer's memory mode computes again
  double optimizer_s = 0;
  double tp_forward_s = 0;
  double tp_backward_s = 0;
  double tp_rerun_s = 0;
  double gather_s = 0;          ///< all-gather of the weights
  double reduce_s[2] = {0, 0};  ///< gradients after micro-batches before the last, and after the last
  bool gather_each = false;     ///< ZeRO-3
  bool gather_first = false;    ///< ZeRO-1 and up: after the optimizer step
  double in_weights_s = 0;
  double in_gradients_s = 0;
  double in_optimizer_s = 0;
  double in_activations_s[2] = {0, 0};
  double out_weights_s = 0;
  double out_gradients_s = 0;
  double out_optimizer_s = 0;
  double out_activations_s[2] = {0, 0};
};

/// Seconds of compute that a layer's backward repeats of its forward.
inline double repeated_s(const LayerWork& work, bool checkpointed) {
  return checkpointed ? work.forward_s : work.rerun_s;
}
/// Channel times of a layer; `first` and `last` name its place in the stage.
ChannelTimes layer_row(const LayerWork& work, Phase phase, bool first, bool last, bool checkpointed);
/// What nothing overlaps: before the first executed layer of a phase, and after the last executed one.
ChannelTimes exposed_before(const LayerWork& work, Phase phase, bool checkpointed);
ChannelTimes exposed_after(const LayerWork& work, Phase phase, bool checkpointed);
/// Serial seconds of a layer: tensor-parallel collectives.
double layer_serial_s(const LayerWork& work, Phase phase, bool checkpointed);

/// Which layers of a stage are checkpointed, given their count.
struct CheckpointSplit {
  bool first = false;
  bool last = false;
  int interior = 0;
};
/// `last_before_first`: the released code's reading, where the last layer counts before the first.
CheckpointSplit split_checkpoints(int layers, int checkpointed, bool last_before_first);

/// Seconds of one phase as coefficients: edges for neither, one and both outer layers checkpointed; single for a stage
/// of one layer.
struct PhaseSeconds {
  std::array<double, 2> interior{};
  std::array<double, 3> edges{};
  std::array<double, 2> single{};
  double total(int layers, int checkpointed) const {
    if (layers == 1) return single[checkpointed > 0 ? 1 : 0];
    const int inner = std::min(std::max(checkpointed - 1, 0), layers - 2);
    const std::size_t edge = checkpointed == 0 ? 0 : checkpointed == layers ? 2 : 1;
    return edges[edge] + interior[0] * (layers - 2 - inner) + interior[1] * inner;
  }
};
PhaseSeconds phase_seconds(const LayerWork& work, Phase phase, const Factors& factors, bool last_before_first);

}  // namespace gantry::cost
