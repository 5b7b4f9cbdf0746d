#include "gantry/plan/enumerate.h"

#include <algorithm>
#include <limits>

#include "gantry/cost/sections.h"

namespace gantry::plan {
namespace {

bool power_of_two(std::int64_t value) { return (value & (value - 1)) == 0; }

}  // namespace

std::vector<int> accumulations_of(const SearchInput& input, const SearchSpace& space) {
  std::vector<int> list;
  for (std::int64_t count = 1; count <= input.global_batch; ++count) {
    if (input.global_batch % count != 0) continue;
    if (space.micro_batch_powers && !power_of_two(count)) continue;
    if (space.accumulation > 0 && count != space.accumulation) continue;
    list.push_back(static_cast<int>(count));
  }
  return list;
}

std::vector<cost::Mesh> meshes_of(const cost::Cluster& cluster) {
  std::vector<cost::Mesh> meshes;
  for (int devices = 1; devices <= cluster.devices_per_node; ++devices) {
    if (cluster.devices_per_node % devices == 0) meshes.push_back({1, devices});
  }
  for (int nodes = 2; nodes <= cluster.nodes; ++nodes) {
    if (cluster.nodes % nodes == 0) meshes.push_back({nodes, cluster.devices_per_node});
  }
  return meshes;
}

std::vector<cost::Policy> shapes_of(const SearchInput& input, const SearchSpace& space, const cost::CostModel& model,
                                    const cost::Mesh& mesh, int tp, int accumulation) {
  std::vector<cost::Policy> shapes;
  const std::int64_t samples = input.global_batch / accumulation;
  if (mesh.per_node % tp != 0 || !model.divisible(tp)) return shapes;
  const int dp = mesh.devices() / tp;
  if (samples % dp != 0 || samples / dp > space.max_micro_batch) return shapes;
  const int micro_batch = static_cast<int>(samples / dp);
  if (space.micro_batch_powers && !power_of_two(micro_batch)) return shapes;
  if (space.micro_batch > 0 && micro_batch != space.micro_batch) return shapes;
  for (const cost::LayerMode mode : space.modes) {
    for (const bool sequence_parallel : space.sequence_parallel) {
      if (sequence_parallel && (tp == 1 || input.sequence % tp != 0)) continue;
      cost::Policy policy;
      policy.micro_batch = micro_batch;
      policy.data_parallel = dp;
      policy.tensor_parallel = tp;
      policy.mode = mode;
      policy.sequence_parallel = sequence_parallel;
      shapes.push_back(policy);
    }
  }
  return shapes;
}

std::vector<std::pair<Schedule, int>> schedules_of(const SearchInput& input, const SearchSpace& space, int stages,
                                                   int accumulation) {
  std::vector<std::pair<Schedule, int>> list;
  const int layers = static_cast<int>(input.model.num_layers);
  for (const Schedule schedule : space.schedules) {
    if (schedule == Schedule::kOneFOneB) list.emplace_back(schedule, 1);
    if (stages == 1) continue;
    if (schedule == Schedule::kZeroBubble) list.emplace_back(schedule, 1);
    if (schedule != Schedule::kInterleaved || accumulation % stages != 0) continue;
    for (const int chunks : space.chunks) {
      if (layers % (stages * chunks) == 0) list.emplace_back(schedule, chunks);
    }
  }
  return list;
}

bool allowed(const SearchSpace& space, Schedule schedule) { return std::ranges::count(space.schedules, schedule) > 0; }

double layer_seconds(const cost::CostModel& model, const cost::Policy& policy) {
  const cost::Section& block =
      model.sections().at({policy.micro_batch, policy.tensor_parallel, policy.mode, policy.sequence_parallel}).block;
  return block.forward_s + block.backward_s + block.tp_forward_s + block.tp_backward_s;
}

double lower_bound_s(const SearchInput& input, const SearchSpace& space, const cost::CostModel& model,
                     int accumulation) {
  double least = std::numeric_limits<double>::infinity();
  for (const cost::Mesh& mesh : meshes_of(input.cluster)) {
    for (const int tp : space.tensor_parallel) {
      for (const cost::Policy& policy : shapes_of(input, space, model, mesh, tp, accumulation)) {
        least = std::min(least, layer_seconds(model, policy) * policy.data_parallel * policy.tensor_parallel);
      }
    }
  }
  return least * static_cast<double>(input.model.num_layers) * accumulation / input.cluster.devices();
}

}  // namespace gantry::plan
