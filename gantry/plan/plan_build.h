#pragma once
// From the search's choices to a plan.
#include <vector>

#include "gantry/plan/search.h"
#include "gantry/plan/stage_pricing.h"

namespace gantry::plan {

/// Hash of a configuration, as in TrainPlan::model_hash.
std::string model_hash(const spec::ModelConfig& model);

/// A plan without stages, its global fields filled.
TrainPlan plan_skeleton(const SearchInput& input, const cost::CostOptions& cost);

void append_stages(TrainPlan& plan, const std::vector<StageChoice>& stages, const std::vector<PolicyChoice>& choices,
                   const std::vector<MeshFamily>& families);

}  // namespace gantry::plan
