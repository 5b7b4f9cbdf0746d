#include "gantry/cost/layer_rows.h"

#include <algorithm>

namespace gantry::cost {
namespace {

bool is_forward(Phase phase) { return phase == Phase::kForwardFirst || phase == Phase::kForward; }

double forward_gather(const LayerWork& work, Phase phase) {
  const bool gathers = phase == Phase::kForwardFirst ? work.gather_first : work.gather_each;
  return gathers ? work.gather_s : 0;
}

double forward_in(const LayerWork& work, Phase phase) {
  return phase == Phase::kForwardFirst ? work.in_optimizer_s + work.in_gradients_s : work.in_weights_s;
}

double forward_out(const LayerWork& work, Phase phase, bool checkpointed) {
  const double activations = work.out_activations_s[checkpointed];
  return phase == Phase::kForwardFirst ? work.out_optimizer_s + work.out_weights_s + activations : activations;
}

double backward_gather(const LayerWork& work) { return work.gather_each ? work.gather_s : 0; }

double backward_in(const LayerWork& work, bool checkpointed) {
  return work.in_weights_s + work.in_gradients_s + work.in_activations_s[checkpointed];
}

double reduction(const LayerWork& work, Phase phase) { return work.reduce_s[phase == Phase::kBackwardLast ? 1 : 0]; }

}  // namespace

ChannelTimes layer_row(const LayerWork& work, Phase phase, bool first, bool last, bool checkpointed) {
  if (is_forward(phase)) {
    const double compute = work.forward_s + (phase == Phase::kForwardFirst ? work.optimizer_s : 0);
    return {compute, last ? 0 : forward_gather(work, phase), last ? 0 : forward_in(work, phase),
            first ? 0 : forward_out(work, phase, checkpointed)};
  }
  const double compute = work.backward_s + repeated_s(work, checkpointed);
  const double gather = first ? 0 : backward_gather(work);
  const double reduce = last ? 0 : reduction(work, phase);
  return {compute, gather + reduce, first ? 0 : backward_in(work, checkpointed), last ? 0 : work.out_gradients_s};
}

ChannelTimes exposed_before(const LayerWork& work, Phase phase, bool checkpointed) {
  if (is_forward(phase)) return {0, forward_gather(work, phase), forward_in(work, phase), 0};
  return {0, backward_gather(work), backward_in(work, checkpointed), 0};
}

ChannelTimes exposed_after(const LayerWork& work, Phase phase, bool checkpointed) {
  if (is_forward(phase)) return {0, 0, 0, forward_out(work, phase, checkpointed)};
  return {0, reduction(work, phase), 0, work.out_gradients_s};
}

double layer_serial_s(const LayerWork& work, Phase phase, bool checkpointed) {
  if (is_forward(phase)) return work.tp_forward_s;
  return work.tp_backward_s + (checkpointed ? work.tp_forward_s : work.tp_rerun_s);
}

CheckpointSplit split_checkpoints(int layers, int checkpointed, bool last_before_first) {
  CheckpointSplit split;
  const bool all = checkpointed == layers;
  split.first = all || (checkpointed > 0 && !last_before_first);
  split.last = all || (checkpointed > 0 && last_before_first);
  split.interior = std::clamp(checkpointed - 1, 0, std::max(layers - 2, 0));
  return split;
}

PhaseSeconds phase_seconds(const LayerWork& work, Phase phase, const Factors& factors, bool last_before_first) {
  PhaseSeconds seconds;
  const auto layer = [&](bool first, bool last, bool checkpointed) {
    return overlap_s(layer_row(work, phase, first, last, checkpointed), factors) +
           layer_serial_s(work, phase, checkpointed);
  };
  const auto exposed = [&](bool checkpointed) {
    return overlap_s(exposed_before(work, phase, checkpointed), factors) +
           overlap_s(exposed_after(work, phase, checkpointed), factors);
  };
  for (const bool checkpointed : {false, true}) {
    seconds.interior[checkpointed] = layer(false, false, checkpointed);
    seconds.single[checkpointed] = layer(true, true, checkpointed) + exposed(checkpointed);
  }
  for (int edge = 0; edge < 3; ++edge) {
    // Three layers with 0, 1 and 3 checkpointed have the three kinds of edges.
    const CheckpointSplit split = split_checkpoints(3, edge == 2 ? 3 : edge, last_before_first);
    seconds.edges[static_cast<std::size_t>(edge)] =
        layer(true, false, split.first) + layer(false, true, split.last) + exposed(split.last);
  }
  return seconds;
}

}  // namespace gantry::cost
