#pragma once
// The discrete choices of a search: accumulations, meshes, stage shapes, schedules.
#include <utility>
#include <vector>

#include "gantry/plan/search.h"

namespace gantry::plan {

/// Micro-batches an iteration that the batch and the space allow.
std::vector<int> accumulations_of(const SearchInput& input, const SearchSpace& space);

/// Meshes that tile the cluster: parts of a node, or whole nodes.
std::vector<cost::Mesh> meshes_of(const cost::Cluster& cluster);

/// Micro-batch, dp, tp, mode and sequence parallelism of the stage shapes on `mesh` with `tp`; empty where tp or the
/// batch does not divide.
std::vector<cost::Policy> shapes_of(const SearchInput& input, const SearchSpace& space, const cost::CostModel& model,
                                    const cost::Mesh& mesh, int tp, int accumulation);

/// Schedules of equal stages with their model chunks; Megatron-LM interleaves equal chunks only.
std::vector<std::pair<Schedule, int>> schedules_of(const SearchInput& input, const SearchSpace& space, int stages,
                                                   int accumulation);
bool allowed(const SearchSpace& space, Schedule schedule);

/// Seconds of a block and micro-batch that no memory policy avoids.
double layer_seconds(const cost::CostModel& model, const cost::Policy& policy);
/// Work that no plan with this accumulation avoids, spread evenly over all devices; infinite where no stage shape
/// exists.
double lower_bound_s(const SearchInput& input, const SearchSpace& space, const cost::CostModel& model,
                     int accumulation);

}  // namespace gantry::plan
