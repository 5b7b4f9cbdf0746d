#include "gantry/plan/inter_stage_lists.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "gantry/base/check.h"

namespace gantry::plan::internal {
namespace {

auto order(const StagePoint& point) { return std::tie(point.t_s, point.d_s, point.choice); }

bool is_staircase(const std::vector<StagePoint>& points) {
  for (std::size_t i = 1; i < points.size(); ++i) {
    if (!(points[i - 1].t_s < points[i].t_s && points[i - 1].d_s > points[i].d_s)) return false;
  }
  return true;
}

}  // namespace

PointLists::PointLists(const StageTables& tables, const Objective& objective, const SearchScope& scope)
    : scope_(scope),
      fill_(objective.fill),
      layers_(tables.layers()),
      num_meshes_(static_cast<int>(scope.meshes.size())),
      max_stages_(scope.max_stages),
      least_work_s_(std::numeric_limits<double>::infinity()) {
  int unit = 0;
  for (const int mesh : scope.meshes) unit = std::gcd(unit, tables.mesh_devices()[mesh]);
  for (const int mesh : scope.meshes) mesh_units_.push_back(tables.mesh_devices()[mesh] / unit);
  units_ = scope.devices % unit == 0 ? scope.devices / unit : 0;
  min_mesh_units_ = *std::ranges::min_element(mesh_units_);
  max_mesh_units_ = *std::ranges::max_element(mesh_units_);
  lists_.resize(2ull * max_stages_ * layers_ * num_meshes_);
  if (units_ == 0) return;
  // Every stage has a layer at least, and one before it unless it is the first: the others' layers bound its own.
  for (int after = 0; after < max_stages_; ++after) {
    const int others = std::max(after + 1, scope.min_stages - 1);
    for (int layers = 1; layers <= layers_ - std::max(1, after); ++layers) {
      for (int mesh = 0; mesh < num_meshes_; ++mesh) {
        const int index = scope.meshes[mesh];
        if (after + 1 < max_stages_ && layers <= layers_ - others) {
          add(tables.at(after == 0 ? Role::kLast : Role::kMiddle, after, layers, index), {false, after, layers, mesh});
        }
        if (after + 1 >= scope.min_stages) {
          add(tables.at(Role::kFirst, after, layers, index), {true, after, layers, mesh});
        }
      }
    }
  }
}

void PointLists::add(const std::vector<StagePoint>& points, const Place& place) {
  scratch_.clear();
  for (const StagePoint& point : points) {
    GANTRY_CHECK(point.t_s >= 0 && std::isfinite(point.t_s) && std::isfinite(point.d_s),
                 "a stage of {} layers with {} stages after it has t = {} s and d = {} s; expected finite values and "
                 "t >= 0; leave points out that are infeasible",
                 place.layers, place.stages_after, point.t_s, point.d_s);
    if (point.t_s <= scope_.cap_s) scratch_.push_back(point);
  }
  if (scratch_.empty()) return;
  if (scope_.best > 1) {
    std::ranges::sort(scratch_, {}, order);
    const auto same = std::ranges::unique(scratch_, {}, order);
    scratch_.erase(same.begin(), same.end());
  } else if (!is_staircase(scratch_)) {
    pareto(scratch_);
  }
  PointList& list = lists_[slot(place)];
  list = {static_cast<std::uint32_t>(t_s_.size()), static_cast<std::uint32_t>(scratch_.size()), scratch_.front().t_s};
  least_work_s_ = std::min(least_work_s_, list.min_t_s * mesh_units_[place.mesh] / place.layers);
  for (const StagePoint& point : scratch_) {
    const double fill_s = fill_ * point.t_s;
    const double alone_s = point.d_s + fill_s;
    const bool less = t_s_.size() == list.begin || alone_s < alone_s_.back();
    alone_point_.push_back(less ? static_cast<std::uint32_t>(t_s_.size()) : alone_point_.back());
    alone_s_.push_back(less ? alone_s : alone_s_.back());
    t_s_.push_back(point.t_s);
    d_s_.push_back(point.d_s);
    fill_s_.push_back(fill_s);
    choice_.push_back(point.choice);
  }
}

PointLists::Place PointLists::place(std::uint32_t slot) const {
  Place place;
  place.mesh = static_cast<int>(slot) % num_meshes_;
  const int rest = static_cast<int>(slot) / num_meshes_;
  place.layers = rest % layers_ + 1;
  place.first = rest / layers_ >= max_stages_;
  place.stages_after = rest / layers_ - (place.first ? max_stages_ : 0);
  return place;
}

StageChoice PointLists::choice(std::uint32_t slot, std::uint32_t point) const {
  const Place at = place(slot);
  return {at.layers, scope_.meshes[at.mesh], {t_s_[point], d_s_[point], choice_[point]}};
}

}  // namespace gantry::plan::internal
