#pragma once
// What of a stage's price depends on mesh, policy and accumulation alone: the search makes it once for each policy and
// then prices every layer, checkpoint and warm-up count with a few multiply-adds.
#include "gantry/cost/layer_rows.h"
#include "gantry/cost/sections.h"
#include "gantry/cost/stage_memory.h"

namespace gantry::cost {

/// Extra of the stages that hold embedding or head.
struct EdgeSeconds {
  double steady_s = 0;  ///< each micro-batch, exposed
  double gather_s = 0;  ///< weights, once an iteration
  double reduce_s = 0;  ///< gradients, once
  double optimizer_s = 0;
  double backward_s = 0;  ///< of the head: hides what comes before the first layer's backward
};

struct StageParts {
  LayerWork work;
  EdgeSeconds pre;
  EdgeSeconds post;
  double p2p_s = 0;          ///< one boundary tensor to a neighbouring stage
  double tied_reduce_s = 0;  ///< gradients of an embedding shared by the first and the last stage
  bool tied = false;
  StageMemory memory;
};

StageParts stage_parts(const SectionTable& sections, const Profile& profile, const Cluster& cluster,
                       const CostOptions& options, bool tied, const Mesh& mesh, const Policy& policy, int accumulation);

/// Fills the parts of `work` that offload ratios change.
void set_transfers(LayerWork& work, const Sections& sections, const Profile& profile, const Cluster& cluster,
                   const CostOptions& options, const Policy& policy);

/// A stage's seconds from the phase coefficients of its layers.
struct StageSeconds {
  PhaseSeconds forward_first;
  PhaseSeconds forward;
  PhaseSeconds backward;
  PhaseSeconds backward_last;
  double before_backward_s[2] = {0, 0};  ///< exposed before the last layer's backward; plain, checkpointed
  double post_gather_s = 0;              ///< what of the head's gathering and reduction the last layer does not hide
  double post_reduce_s[2] = {0, 0};
};
/// Seconds of the head's all-gather that the last layer's forward does not hide.
double exposed_post_gather_s(const LayerWork& work, const EdgeSeconds& post);

StageSeconds stage_seconds(const StageParts& parts, const Factors& factors, const CostOptions& options);

struct StageTime {
  double t_s = 0;
  double d_s = 0;
};
StageTime stage_time(const StageParts& parts, const StageSeconds& seconds, const CostOptions& options, int layers,
                     int checkpointed, bool first, bool last, int accumulation, int chunks);

/// Devices that hold the same shard: they span nodes first.
GroupShape data_parallel_group(const Mesh& mesh, const Policy& policy);

}  // namespace gantry::cost
