#pragma once
// Whether a plan can run at all: every rule is about the plan's own consistency with model and cluster, not about its
// speed.
#include <string>
#include <vector>

#include "gantry/cost/cluster.h"
#include "gantry/plan/types.h"
#include "gantry/spec/config.h"

namespace gantry::plan {

struct Issue {
  std::string field;    ///< "stages[2].tensor_parallel": the name in plan.json
  std::string message;  ///< expected, found, what to do

  bool operator==(const Issue&) const = default;
};

/// Empty where the plan is sound: layers cover the model once and in order; meshes cover the cluster's devices once;
/// ranks are distinct, fit their mesh, and tensor-parallel groups stay within a node; dp * tp = devices of the mesh;
/// micro_batch * dp * accumulation = global batch; tp divides heads and widths (spec::tensor_parallel_refusal; the last
/// rank may hold fewer rows of the vocabulary); ratios within [0, 1]; zero 0..3; checkpointed <= layers; interleaving
/// divides layers and micro-batches. Memory is judged by the cost model, not here. Any plan may be given, also one that
/// no file could hold.
std::vector<Issue> verify(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster);
/// Throws InputError with all issues.
void require_sound(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster);

/// Ranks of the stages in order where `ranks` are empty: larger meshes are placed first so that no stage straddles
/// nodes needlessly; a mesh takes the fullest nodes that still hold it. Rank = node * devices_per_node + device.
/// InputError where a mesh finds no room, which can happen for meshes that are not powers of two.
void assign_ranks(TrainPlan& plan, const cost::Cluster& cluster);

}  // namespace gantry::plan
