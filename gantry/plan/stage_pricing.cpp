#include "gantry/plan/stage_pricing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gantry::plan {
namespace {

class Pricer {
 public:
  Pricer(std::vector<StageFamily>& families, const std::vector<int>& mesh_devices, int layers, int max_stages,
         const StageProblem& problem)
      : problem_(problem),
        layers_(layers),
        devices_(mesh_devices),
        result_{StageTables(layers, mesh_devices, max_stages), {}, 0},
        by_mesh_(mesh_devices.size()),
        least_layer_s_(mesh_devices.size(), std::numeric_limits<double>::infinity()) {
    for (StageFamily& family : families) {
      if (family.empty()) continue;
      const auto mesh = static_cast<std::size_t>(family.mesh());
      by_mesh_[mesh].push_back(&family);
      least_layer_s_[mesh] = std::min(least_layer_s_[mesh], family.least_layer_s());
      least_device_s_ = std::min(least_device_s_, family.least_layer_s() * devices_[mesh]);
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
    const int others = problem_.devices - devices_[static_cast<std::size_t>(mesh)];
    const int most_after = std::min({others, layers_ - 1, result_.tables.max_stages() - 1});
    for (int layers = problem_.least_layers; layers <= std::min(problem_.most_layers, layers_); ++layers) {
      if (layers % problem_.layer_multiple != 0 || hopeless(mesh, layers)) continue;
      if (others == 0 && layers == layers_ && problem_.stages <= 1) price(Role::kOnly, 0, layers, mesh);
      if (others == 0 || layers == layers_ || problem_.stages == 1) continue;
      const int last_after = problem_.stages > 0 ? std::min(problem_.stages - 1, most_after) : most_after;
      price(Role::kLast, 0, layers, mesh);
      for (int after = 1; after <= last_after; ++after) {
        if (problem_.stages == 0 || after == problem_.stages - 1) price(Role::kFirst, after, layers, mesh);
        if (after < most_after && (problem_.stages == 0 || after < problem_.stages - 1)) {
          price(Role::kMiddle, after, layers, mesh);
        }
      }
    }
  }

  void price(Role role, int after, int layers, int mesh) {
    std::vector<StagePoint>& points = result_.tables.at(role, after, layers, mesh);
    const double warmup = problem_.warmup(after);
    // Deep pipelines: no more micro-batches than there are can be alive, and then one more stage changes nothing.
    if (after > 1 && problem_.warmup(after - 1) == warmup && role != Role::kLast && role != Role::kOnly) {
      points = result_.tables.at(role, after - 1, layers, mesh);
      if (!points.empty()) return;
    }
    front_.clear();
    front_.limit(problem_.bound_s / problem_.accumulation);
    for (StageFamily* family : by_mesh_[static_cast<std::size_t>(mesh)]) {
      for (int count = 0; count <= layers; ++count) {
        const bool allowed = count == 0        ? problem_.checkpoint_none
                             : count == layers ? problem_.checkpoint_all
                                               : problem_.checkpoint_some;
        if (!allowed) continue;
        family->add_points(front_, role, warmup, layers, count);
        ++result_.priced;
      }
    }
    for (const FrontPoint& point : front_.points()) {
      points.push_back({point.t_s, point.d_s, static_cast<int>(result_.choices.size())});
      result_.choices.push_back(point.choice);
    }
  }

  const StageProblem& problem_;
  int layers_;
  const std::vector<int>& devices_;
  PricedStages result_;
  Front front_;
  std::vector<std::vector<StageFamily*>> by_mesh_;
  std::vector<double> least_layer_s_;
  double least_device_s_ = std::numeric_limits<double>::infinity();
};

}  // namespace

PricedStages price_stages(std::vector<StageFamily>& families, const std::vector<int>& mesh_devices, int layers,
                          int max_stages, const StageProblem& problem) {
  return Pricer(families, mesh_devices, layers, max_stages, problem).run();
}

}  // namespace gantry::plan
