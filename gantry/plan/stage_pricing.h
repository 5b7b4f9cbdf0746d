#pragma once
// Fills the stage tables of the inter-stage search for one accumulation.
#include <functional>
#include <vector>

#include "gantry/plan/inter_stage.h"
#include "gantry/plan/stage_family.h"

namespace gantry::plan {

/// A run of the inter-stage search: one accumulation, a set of meshes, a schedule's warm-up rule.
struct StageProblem {
  int devices = 1;
  int accumulation = 1;
  int stages = 0;        ///< 0: any number
  int least_layers = 1;  ///< of a stage
  int most_layers = 1;
  Schedule schedule = Schedule::kOneFOneB;
  int chunks = 1;               ///< of each stage; divides its layers
  bool checkpoint_none = true;  ///< which counts of checkpointed layers are allowed: 0,
  bool checkpoint_all = true;   ///< all,
  bool checkpoint_some = true;  ///< and what lies between
  double bound_s = 0;           ///< plans must be faster
  std::function<double(int stages_after)> warmup;
};

struct PricedStages {
  StageTables tables;
  std::vector<PolicyChoice> choices;  ///< by StagePoint::choice
  std::int64_t priced = 0;            ///< policies with a time below the bound
};

/// Families that run on mesh `mesh`, an index into the tables' mesh_devices.
struct MeshFamily {
  StageFamily* family = nullptr;
  int mesh = 0;
};

PricedStages price_stages(const std::vector<MeshFamily>& families, const std::vector<int>& mesh_devices, int layers,
                          int max_stages, const StageProblem& problem);

}  // namespace gantry::plan
