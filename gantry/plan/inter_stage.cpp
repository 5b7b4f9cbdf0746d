#include "gantry/plan/inter_stage.h"

#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"
#include "gantry/plan/inter_stage_lists.h"
#include "gantry/plan/inter_stage_search.h"

namespace gantry::plan {
namespace {

using internal::CappedPlan;
using internal::CappedSearch;
using internal::PointLists;
using internal::SearchScope;

bool same_stage(const StageChoice& a, const StageChoice& b) {
  return a.layers == b.layers && a.mesh == b.mesh && a.point.choice == b.point.choice && a.point.t_s == b.point.t_s &&
         a.point.d_s == b.point.d_s;
}

// The best plans seen, cheapest first.
class Ranking {
 public:
  Ranking(const Objective& objective, const InterStageOptions& options)
      : objective_(objective), incumbent_s_(options.incumbent_s), best_(static_cast<std::size_t>(options.best)) {}

  /// Plans must cost less than this to change the ranking.
  double cutoff_s() const {
    return results_.size() < best_ ? incumbent_s_ : std::min(incumbent_s_, results_.back().iteration_s);
  }

  void add(std::vector<StageChoice> stages) {
    const double cost_s = iteration_s(stages, objective_);
    if (!(cost_s < cutoff_s())) return;
    const auto at = std::ranges::upper_bound(results_, cost_s, {}, &InterStageResult::iteration_s);
    for (auto other = at; other != results_.begin() && (other - 1)->iteration_s == cost_s; --other) {
      if (std::ranges::equal((other - 1)->stages, stages, same_stage)) return;
    }
    results_.insert(at, {cost_s, std::move(stages)});
    if (results_.size() > best_) results_.pop_back();
  }

  std::vector<InterStageResult> take() { return std::move(results_); }

 private:
  Objective objective_;
  double incumbent_s_;
  std::size_t best_;
  std::vector<InterStageResult> results_;
};

// Lets the cap on max t range over all values that t takes. Caps are grouped in intervals; the least E at the largest
// cap of an interval bounds the E of all of them from below, and the smallest cap bounds their max t.
class Sweep {
 public:
  Sweep(const Objective& objective, const PointLists& lists, CappedSearch& search, Ranking& ranking)
      : steady_(objective.steady), best_(lists.scope().best), search_(search), ranking_(ranking) {
    const double last_s = largest_cap_s(search.min_e_s());
    for (std::size_t i = 0; i < lists.num_points(); ++i) {
      const double t_s = lists.t_s()[i];
      if (t_s >= search.min_max_t_s() && t_s <= last_s) caps_s_.push_back(t_s);
    }
    std::ranges::sort(caps_s_);
    const auto same = std::ranges::unique(caps_s_);
    caps_s_.erase(same.begin(), same.end());
  }

  void run() {
    if (caps_s_.empty()) return;
    // The smallest cap first: with many micro-batches its plan is nearly optimal, and its few states are quickly done.
    const int last = static_cast<int>(caps_s_.size()) - 1;
    std::vector<Interval> open = {{1, last, search_.min_e_s()}, {0, 0, search_.min_e_s()}};
    while (!open.empty()) {
      Interval interval = open.back();
      open.pop_back();
      shrink(interval);
      if (interval.first > interval.last) continue;
      const double low_s = caps_s_[interval.first];
      std::vector<CappedPlan> plans = search_.run(caps_s_[interval.last], ranking_.cutoff_s() - steady_ * low_s);
      const bool complete = static_cast<int>(plans.size()) < best_;
      const double e_s = complete ? 0 : plans.back().e_s;
      for (CappedPlan& plan : plans) ranking_.add(std::move(plan.stages));
      if (complete) continue;  // all plans of the interval below the cutoff were found
      // A plan that was left out has no less E than the `best` that were found, which are no slower than the last cap:
      // one whose max t is that cap cannot be cheaper than these.
      interval.e_s = e_s;
      --interval.last;
      shrink(interval);
      if (interval.first > interval.last) continue;
      const int middle = interval.first + (interval.last - interval.first) / 2;
      open.push_back({middle + 1, interval.last, e_s});
      open.push_back({interval.first, middle, e_s});
    }
  }

 private:
  struct Interval {
    int first, last;  // of caps_s_
    double e_s;       // no plan of interest within has less E
  };

  double largest_cap_s(double e_s) const {
    return steady_ > 0 ? (ranking_.cutoff_s() - e_s) / steady_ : std::numeric_limits<double>::infinity();
  }

  void shrink(Interval& interval) const {
    if (!(interval.e_s < ranking_.cutoff_s())) {
      interval.last = interval.first - 1;
      return;
    }
    const double last_s = largest_cap_s(interval.e_s);
    while (interval.last >= interval.first && caps_s_[interval.last] > last_s) --interval.last;
  }

  double steady_;
  int best_;
  CappedSearch& search_;
  Ranking& ranking_;
  std::vector<double> caps_s_;
};

// Plans of two stages or more.
void search_scope(const StageTables& tables, const Objective& objective, SearchScope scope, Ranking& ranking) {
  if (scope.min_stages > scope.max_stages) return;
  // Twice where no plan is known yet: a bound on the cost makes the tables small.
  for (bool again = true; again;) {
    const double cutoff_s = ranking.cutoff_s();
    if (!(cutoff_s > 0)) return;
    const double weight = objective.steady + objective.fill;
    scope.cap_s = weight > 0 ? cutoff_s / weight * (1 + 1e-12) : std::numeric_limits<double>::infinity();
    const PointLists lists(tables, objective, scope);
    CappedSearch search(lists, objective, cutoff_s);
    if (!search.feasible()) return;
    again = false;
    if (cutoff_s == std::numeric_limits<double>::infinity()) {
      for (CappedPlan& plan : search.run(search.min_max_t_s(), cutoff_s)) ranking.add(std::move(plan.stages));
      again = ranking.cutoff_s() < cutoff_s;
      if (again) continue;
    }
    Sweep(objective, lists, search, ranking).run();
  }
}

void search_single_stage(const StageTables& tables, int devices, Ranking& ranking) {
  for (std::size_t mesh = 0; mesh < tables.mesh_devices().size(); ++mesh) {
    if (tables.mesh_devices()[mesh] != devices) continue;
    const int index = static_cast<int>(mesh);
    for (const StagePoint& point : tables.at(Role::kOnly, 0, tables.layers(), index)) {
      GANTRY_CHECK(point.t_s >= 0 && std::isfinite(point.t_s) && std::isfinite(point.d_s),
                   "the only stage has t = {} s and d = {} s; expected finite values and t >= 0; leave points out that "
                   "are infeasible",
                   point.t_s, point.d_s);
      ranking.add({{tables.layers(), index, point}});
    }
  }
}

void check_inputs(const StageTables& tables, int devices, const Objective& objective,
                  const InterStageOptions& options) {
  GANTRY_CHECK(devices >= 1, "devices = {}: expected at least 1", devices);
  GANTRY_CHECK(options.best >= 1, "best = {}: expected at least 1 plan", options.best);
  GANTRY_CHECK(options.stages >= 0 && options.stages <= tables.max_stages(),
               "stages = {}: expected 0 (any number) to {}, the most that the tables hold", options.stages,
               tables.max_stages());
  GANTRY_CHECK(!std::isnan(options.incumbent_s), "incumbent_s is not a number: expected seconds, or infinity for none");
  GANTRY_CHECK(
      objective.steady >= 0 && std::isfinite(objective.steady) && objective.fill >= 0 && std::isfinite(objective.fill),
      "objective of steady = {} and fill = {}: expected finite values of at least 0", objective.steady, objective.fill);
}

}  // namespace

StageTables::StageTables(int layers, std::vector<int> mesh_devices, int max_stages)
    : layers_(layers), mesh_devices_(std::move(mesh_devices)), max_stages_(max_stages) {
  GANTRY_CHECK(layers >= 1 && max_stages >= 1 && !mesh_devices_.empty(),
               "tables of {} layers, {} mesh shapes and at most {} stages: expected at least 1 of each", layers,
               mesh_devices_.size(), max_stages);
  for (const int devices : mesh_devices_)
    GANTRY_CHECK(devices >= 1, "a mesh of {} devices: expected 1 or more", devices);
  const double lists = 2.0 * max_stages * layers * static_cast<double>(mesh_devices_.size());
  GANTRY_CHECK(lists <= 1 << 26, "tables of {} layers, {} mesh shapes and at most {} stages hold too many lists ({})",
               layers, mesh_devices_.size(), max_stages, lists);
  points_.resize(static_cast<std::size_t>(lists));
}

// Blocks of layers * meshes lists: kOnly, kLast, then kFirst and kMiddle by stages after.
std::size_t StageTables::index(Role role, int stages_after, int layers, int mesh) const {
  const bool ends = role == Role::kOnly || role == Role::kLast;
  GANTRY_CHECK(ends ? stages_after == 0 : stages_after >= 1 && stages_after < max_stages_,
               "a stage with {} stages after it: expected {}", stages_after,
               ends ? "0 for the last or only one" : fmt::format("1 to {} for another", max_stages_ - 1));
  GANTRY_CHECK(layers >= 1 && layers <= layers_, "a stage of {} layers: expected 1 to {}", layers, layers_);
  GANTRY_CHECK(mesh >= 0 && mesh < static_cast<int>(mesh_devices_.size()), "mesh shape {}: expected 0 to {}", mesh,
               mesh_devices_.size() - 1);
  const std::size_t block = ends ? (role == Role::kLast) : 2ull * stages_after + (role == Role::kMiddle);
  return (block * layers_ + layers - 1) * mesh_devices_.size() + mesh;
}

std::vector<StagePoint>& StageTables::at(Role role, int stages_after, int layers, int mesh) {
  return points_[index(role, stages_after, layers, mesh)];
}

const std::vector<StagePoint>& StageTables::at(Role role, int stages_after, int layers, int mesh) const {
  return points_[index(role, stages_after, layers, mesh)];
}

double iteration_s(std::span<const StageChoice> stages, const Objective& objective) {
  double sum_s = 0, max_s = 0, delta_s = 0;
  for (const StageChoice& stage : stages) {
    delta_s = std::max(delta_s, stage.point.d_s - objective.fill * sum_s);
    sum_s += stage.point.t_s;
    max_s = std::max(max_s, stage.point.t_s);
  }
  return objective.steady * max_s + objective.fill * sum_s + delta_s;
}

std::vector<InterStageResult> inter_stage(const StageTables& tables, int devices, const Objective& objective,
                                          const InterStageOptions& options) {
  check_inputs(tables, devices, objective, options);
  Ranking ranking(objective, options);
  if (options.stages <= 1) search_single_stage(tables, devices, ranking);
  const int layers = tables.layers();
  const int min_stages = std::max(2, options.stages);
  const int max_stages = options.stages > 0 ? options.stages : std::min(tables.max_stages(), layers);
  std::vector<int> meshes;
  // Equal meshes first: their searches are short, and their best plan bounds the others.
  for (int mesh = 0; mesh < static_cast<int>(tables.mesh_devices().size()); ++mesh) {
    const int of_mesh = tables.mesh_devices()[mesh];
    if (of_mesh < devices) meshes.push_back(mesh);
    const int stages = devices / of_mesh;
    if (devices % of_mesh != 0 || stages < min_stages || stages > std::min(max_stages, layers)) continue;
    search_scope(tables, objective, {{mesh}, devices, stages, stages, 0, options.best}, ranking);
  }
  if (options.uniform_mesh || meshes.size() < 2) return ranking.take();
  int smallest = devices;
  for (const int mesh : meshes) smallest = std::min(smallest, tables.mesh_devices()[mesh]);
  const int most = std::min({max_stages, layers, devices / smallest});
  search_scope(tables, objective, {meshes, devices, min_stages, most, 0, options.best}, ranking);
  return ranking.take();
}

void pareto(std::vector<StagePoint>& points) {
  std::ranges::sort(points, {}, [](const StagePoint& p) { return std::tie(p.t_s, p.d_s, p.choice); });
  std::size_t kept = 0;
  for (const StagePoint& point : points) {
    if (kept == 0 || point.d_s < points[kept - 1].d_s) points[kept++] = point;
  }
  points.resize(kept);
}

}  // namespace gantry::plan
