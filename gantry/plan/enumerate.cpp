#include "gantry/plan/enumerate.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "gantry/cost/sections.h"

namespace gantry::plan {
namespace {

bool power_of_two(std::int64_t value) { return (value & (value - 1)) == 0; }

// All that a mode changes and that a plan's time or memory grows with.
std::array<double, 9> burden(const cost::Section& s) {
  return {s.forward_s, s.backward_s,   s.backward_s + s.rerun_s, s.tp_backward_s + s.tp_rerun_s,
          s.saved,     s.peak_forward, s.peak_backward,          s.peak_backward + s.checkpointed_peak_more,
          s.output};
}

bool no_worse(const cost::Sections& a, const cost::Sections& b) {
  const auto section = [](const cost::Section& x, const cost::Section& y) {
    const auto left = burden(x);
    const auto right = burden(y);
    return std::equal(left.begin(), left.end(), right.begin(), std::less_equal<>());
  };
  return section(a.pre, b.pre) && section(a.block, b.block) && section(a.post, b.post);
}

// The modes of `space` that can be priced and that no other one beats or equals in everything; of equals the first.
std::vector<cost::LayerMode> useful_modes(const SearchSpace& space, const cost::CostModel& model,
                                          const cost::Policy& policy) {
  std::vector<std::pair<cost::LayerMode, const cost::Sections*>> modes;
  for (const cost::LayerMode mode : space.modes) {
    if (mode == cost::LayerMode::kRerun && !model.options().flash_attention) continue;
    const cost::SectionKey key{policy.micro_batch, policy.tensor_parallel, mode, policy.sequence_parallel};
    modes.emplace_back(mode, &model.sections().at(key));
  }
  std::vector<cost::LayerMode> useful;
  for (std::size_t i = 0; i < modes.size(); ++i) {
    bool beaten = false;
    for (std::size_t j = 0; j < modes.size() && !beaten; ++j) {
      if (j == i || !no_worse(*modes[j].second, *modes[i].second)) continue;
      beaten = j < i || !no_worse(*modes[i].second, *modes[j].second);
    }
    if (!beaten) useful.push_back(modes[i].first);
  }
  return useful;
}

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
  for (const bool sequence_parallel : space.sequence_parallel) {
    if (sequence_parallel && (tp == 1 || input.sequence % tp != 0)) continue;
    cost::Policy policy;
    policy.micro_batch = micro_batch;
    policy.data_parallel = dp;
    policy.tensor_parallel = tp;
    policy.sequence_parallel = sequence_parallel;
    for (const cost::LayerMode mode : useful_modes(space, model, policy)) {
      policy.mode = mode;
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
  return block.forward_s + block.backward_s + block.rerun_s + block.tp_forward_s + block.tp_backward_s +
         block.tp_rerun_s;
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
