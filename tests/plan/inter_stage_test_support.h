#pragma once
// Random stage tables, and every plan of small ones.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "gantry/base/random.h"
#include "gantry/plan/inter_stage.h"

namespace gantry::plan::testing {

struct TableShape {
  int layers = 6;
  std::vector<int> mesh_devices = {1};
  int max_stages = 4;
  int points = 3;               ///< a list, at most, before dominated ones go
  double holes = 0;             ///< share of lists without a point
  bool keep_dominated = false;  ///< for rankings
  double scaling = 0.9;         ///< t falls with this power of the mesh's devices
  int min_layers = 1;           ///< lists of fewer or more layers stay empty
  int max_layers = 1 << 20;
};

/// Calls `visit(role, stages_after, layers, mesh)` for every list of the tables.
inline void for_each_list(const StageTables& tables, const std::function<void(Role, int, int, int)>& visit) {
  for (int mesh = 0; mesh < static_cast<int>(tables.mesh_devices().size()); ++mesh) {
    for (int layers = 1; layers <= tables.layers(); ++layers) {
      visit(Role::kOnly, 0, layers, mesh);
      visit(Role::kLast, 0, layers, mesh);
      for (int after = 1; after < tables.max_stages(); ++after) {
        visit(Role::kFirst, after, layers, mesh);
        visit(Role::kMiddle, after, layers, mesh);
      }
    }
  }
}

/// Seconds about proportional to layers and devices; points trade t for d; the first and the last stage do more.
inline StageTables random_tables(base::CounterRandom& random, const TableShape& shape) {
  StageTables tables(shape.layers, shape.mesh_devices, shape.max_stages);
  for_each_list(tables, [&](Role role, int after, int layers, int mesh) {
    if (random.uniform() < shape.holes) return;
    if (role != Role::kOnly && (layers < shape.min_layers || layers > shape.max_layers)) return;
    const double ends = role == Role::kMiddle ? 0 : role == Role::kFirst ? 0.15 : 0.4;
    const double work = (layers + ends) * (1 + 0.01 * after);
    const double base_t = work / std::pow(shape.mesh_devices[mesh], shape.scaling);
    std::vector<StagePoint>& points = tables.at(role, after, layers, mesh);
    for (int i = 0; i < shape.points; ++i) {
      const double slow = random.uniform();
      points.push_back({base_t * (1 + 0.5 * slow), base_t * (0.1 + 3 * (1 - slow) * (1 - slow) * random.uniform()), i});
    }
    if (!shape.keep_dominated) pareto(points);
  });
  return tables;
}

/// Every plan, cheapest first.
inline std::vector<InterStageResult> all_plans(const StageTables& tables, int devices, const Objective& objective,
                                               const InterStageOptions& options) {
  std::vector<InterStageResult> plans;
  std::vector<StageChoice> stages;
  const std::function<void(int, int, int)> extend = [&](int after, int layers, int left) {
    const bool first = stages.empty();
    const Role role = after == 0 ? (first ? Role::kOnly : Role::kLast) : first ? Role::kFirst : Role::kMiddle;
    for (int mesh = 0; mesh < static_cast<int>(tables.mesh_devices().size()); ++mesh) {
      const int rest = left - tables.mesh_devices()[mesh];
      if (options.uniform_mesh && !first && mesh != stages[0].mesh) continue;
      if (rest < after || (after == 0 && rest != 0)) continue;
      for (int own = after == 0 ? layers : 1; own <= layers - after; ++own) {
        for (const StagePoint& point : tables.at(role, after, own, mesh)) {
          stages.push_back({own, mesh, point});
          if (after == 0) {
            plans.push_back({iteration_s(stages, objective), stages});
          } else {
            extend(after - 1, layers - own, rest);
          }
          stages.pop_back();
        }
      }
    }
  };
  for (int count = 1; count <= std::min(tables.max_stages(), tables.layers()); ++count) {
    if (options.stages == 0 || options.stages == count) extend(count - 1, tables.layers(), devices);
  }
  std::ranges::stable_sort(plans, {}, &InterStageResult::iteration_s);
  return plans;
}

}  // namespace gantry::plan::testing
