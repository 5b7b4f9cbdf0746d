#include "gantry/plan/stage_pricing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gantry::plan {
namespace {

class Pricer {
 public:
  Pricer(const std::vector<MeshFamily>& families, const std::vector<int>& mesh_devices, int layers, int max_stages,
         const StageProblem& problem)
      : problem_(problem),
        layers_(layers),
        devices_(mesh_devices),
        result_{StageTables(layers, mesh_devices, max_stages), {}, 0},
        by_mesh_(mesh_devices.size()),
        least_layer_s_(mesh_devices.size(), std::numeric_limits<double>::infinity()) {
    for (std::size_t i = 0; i < families.size(); ++i) {
      const auto& [family, mesh] = families[i];
      families_.push_back(family);
      if (family->empty()) continue;
      const auto m = static_cast<std::size_t>(mesh);
      by_mesh_[m].push_back({family, static_cast<int>(i)});
      least_layer_s_[m] = std::min(least_layer_s_[m], family->least_layer_s());
      least_device_s_ = std::min(least_device_s_, family->least_layer_s() * devices_[m]);
    }
  }

  PricedStages run() && {
    for (std::size_t mesh = 0; mesh < devices_.size(); ++mesh) {
      if (!by_mesh_[mesh].empty()) price_mesh(static_cast<int>(mesh));
    }
    return std::move(result_);
  }

 private:
  // G * max t is a lower bound of an iteration; the slowest of the other stages is no faster than their mean.
  bool hopeless(int mesh, int layers) const {
    const double rounds = problem_.accumulation;
    if (rounds * layers * least_layer_s_[static_cast<std::size_t>(mesh)] >= problem_.bound_s) return true;
    const int others = problem_.devices - devices_[static_cast<std::size_t>(mesh)];
    if (others <= 0) return layers != layers_;
    return rounds * (layers_ - layers) * least_device_s_ / others >= problem_.bound_s;
  }

  void price_mesh(int mesh) {
    for (int layers = problem_.least_layers; layers <= std::min(problem_.most_layers, layers_); ++layers) {
      if (layers % problem_.chunks != 0 || hopeless(mesh, layers)) continue;
      const bool whole = devices_[static_cast<std::size_t>(mesh)] == problem_.devices && layers == layers_;
      if (whole && problem_.stages <= 1) price(Role::kOnly, {0, 0}, layers, mesh);
      if (problem_.stages != 1) price_pipeline_stage(mesh, layers);
    }
  }

  void price_pipeline_stage(int mesh, int layers) {
    const int others = std::min(problem_.devices - devices_[static_cast<std::size_t>(mesh)], layers_ - layers);
    if (others < 1) return;
    const int most_after = std::min(others, result_.tables.max_stages() - 1);
    price(Role::kLast, {0, 0}, layers, mesh);
    if (problem_.stages > 0) {
      if (problem_.stages - 1 > most_after) return;
      price(Role::kFirst, {problem_.stages - 1, problem_.stages - 1}, layers, mesh);
      price(Role::kMiddle, {1, problem_.stages - 2}, layers, mesh);
    } else {
      price(Role::kFirst, {1, most_after}, layers, mesh);
      price(Role::kMiddle, {1, most_after - 1}, layers, mesh);
    }
  }

  struct Range {
    int first;
    int last;
  };

  // Times do not depend on the stages after; memory does, and grows with the warm-up.
  void price(Role role, Range after, int layers, int mesh) {
    if (after.last < after.first) return;
    const double least_warmup = std::min(problem_.warmup(after.first), problem_.warmup(after.last));
    collect_times({role, layers, problem_.chunks, least_warmup, problem_.checkpoint_none, problem_.checkpoint_all,
                   problem_.checkpoint_some},
                  mesh);
    if (times_.empty()) return;
    for (int p = after.first; p <= after.last; ++p) {
      std::vector<StagePoint>& points = result_.tables.at(role, p, layers, mesh);
      const double warmup = problem_.warmup(p);
      if (p > after.first && problem_.warmup(p - 1) == warmup) {
        points = result_.tables.at(role, p - 1, layers, mesh);
      } else {
        fill(points, role, warmup, layers);
      }
    }
  }

  void collect_times(const StageRange& range, int mesh) {
    times_.clear();
    const double limit = problem_.bound_s / problem_.accumulation;
    for (const auto& [family, index] : by_mesh_[static_cast<std::size_t>(mesh)]) {
      family->append_times(times_, range, index, limit);
    }
    least_d_s_.resize(times_.size());
    sorted_ = 0;
    result_.priced += static_cast<std::int64_t>(times_.size());
  }

  // Sorts more of the times, twice as many each time: most stages need few of them.
  void sort_more() {
    const std::size_t end = std::min(times_.size(), std::max<std::size_t>(1024, sorted_ * 2));
    const auto from = times_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto to = times_.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != times_.end()) std::ranges::nth_element(from, to, times_.end(), {}, &FrontPoint::t_s);
    std::ranges::sort(from, to, {}, &FrontPoint::t_s);
    double least = std::numeric_limits<double>::infinity();
    for (auto rest = to; rest != times_.end(); ++rest) least = std::min(least, rest->d_s);
    for (std::size_t i = end; i-- > sorted_;) least_d_s_[i] = least = std::min(least, times_[i].d_s);
    sorted_ = end;
  }

  // In order of t, so that a point is of use only where its d is less than all before.
  void fill(std::vector<StagePoint>& points, Role role, double warmup, int layers) {
    double best_d = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < times_.size(); ++i) {
      if (i == sorted_) sort_more();
      if (least_d_s_[i] >= best_d) break;
      if (times_[i].d_s >= best_d) continue;
      StageFamily& family = *families_[static_cast<std::size_t>(times_[i].choice.family)];
      const auto point = family.fit(times_[i], role, warmup, layers);
      if (!point || point->d_s >= best_d) continue;
      points.push_back({point->t_s, point->d_s, static_cast<int>(result_.choices.size())});
      result_.choices.push_back(point->choice);
      // With one micro-batch offloading moves t, and the order is no longer strict.
      if (problem_.accumulation > 1) best_d = point->d_s;
    }
    if (problem_.accumulation == 1) pareto(points);
  }

  const StageProblem& problem_;
  int layers_;
  const std::vector<int>& devices_;
  PricedStages result_;
  std::vector<FrontPoint> times_;  // the first sorted_ by t, and no other below them
  std::size_t sorted_ = 0;
  std::vector<double> least_d_s_;  // of times_ from here on
  std::vector<StageFamily*> families_;
  std::vector<std::vector<std::pair<StageFamily*, int>>> by_mesh_;
  std::vector<double> least_layer_s_;
  double least_device_s_ = std::numeric_limits<double>::infinity();
};

}  // namespace

PricedStages price_stages(const std::vector<MeshFamily>& families, const std::vector<int>& mesh_devices, int layers,
                          int max_stages, const StageProblem& problem) {
  return Pricer(families, mesh_devices, layers, max_stages, problem).run();
}

}  // namespace gantry::plan
