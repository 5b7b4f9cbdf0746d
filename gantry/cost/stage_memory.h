#pragma once
// Memory of a stage on one device (Mist's released code; docs/plan.md), as coefficients that the search evaluates for
// every layer and checkpoint count.
#include <algorithm>
#include <vector>

#include "gantry/cost/sections.h"
#include "gantry/cost/stage.h"

namespace gantry::cost {

/// Unsharded bytes of a section's states on one rank and what one policy keeps of them on the device.
struct StateBytes {
  double weights = 0;
  double gradients = 0;
  double optimizer = 0;
  double sum() const { return weights + gradients + optimizer; }
};

struct StageMemory {
  double buffers = 0;           ///< rings of full weights and gradients
  double optimizer_staged = 0;  ///< states of the layer being updated
  StateBytes resident;          ///< of one layer, without the offloaded part
  StateBytes offloaded;         ///< of one layer, in host memory
  double saved[2] = {0, 0};     ///< of one layer and micro-batch, on the device; plain, checkpointed
  double full_saved[2] = {0, 0};
  double activation_offload = 0;
  double peak_forward = 0;
  double peak_backward = 0;
  double checkpointed_peak_more = 0;  ///< of peak_backward, for a checkpointed layer
  double output = 0;
  double scores = 0;
  double pre_states = 0;
  double pre_saved = 0;
  double post_states = 0;
  double shared_states = 0;  ///< of both, where tied weights serve embedding and head on one stage
  double post_peak_forward = 0;
  double post_peak_backward = 0;
  double post_output = 0;

  struct Peaks {
    double forward = 0;
    double backward = 0;
  };
  /// Without margin. `warmup` as in StageQuery.
  Peaks peaks(int layers, int checkpointed, double warmup, bool first, bool last) const;
  double host_bytes(int layers, int checkpointed, double warmup) const;
};

StageMemory stage_memory(const Sections& sections, const Policy& policy, const CostOptions& options);

/// Mist's factor on a predicted peak (its released code), 1 where the margin is off.
double memory_margin(const spec::ModelConfig& model, std::int64_t sequence, const Policy& policy, bool first, bool last,
                     const CostOptions& options);

}  // namespace gantry::cost
