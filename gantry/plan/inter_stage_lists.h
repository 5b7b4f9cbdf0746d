#pragma once
// Internal to inter_stage: the points of a StageTables that one search looks at, flat and sorted.
#include <cstdint>
#include <span>
#include <vector>

#include "gantry/plan/inter_stage.h"

namespace gantry::plan::internal {

/// What one search covers. Plans of a single stage are not part of it.
struct SearchScope {
  std::vector<int> meshes;  ///< indices of StageTables::mesh_devices()
  int devices = 0;
  int min_stages = 2;
  int max_stages = 2;
  double cap_s = 0;  ///< points slower than this are left out
  int best = 1;
};

/// Points of one (role, stages after, layers, mesh), t ascending. For best = 1 they are a staircase: d descends.
struct PointList {
  std::uint32_t begin = 0;
  std::uint32_t count = 0;
  double min_t_s = 0;
};

/// Lists are numbered: those of a first stage (kFirst) and those of any other (kMiddle, or kLast with none after it).
/// Meshes are numbered by their place in the scope, devices in units of what all meshes are multiples of.
class PointLists {
 public:
  PointLists(const StageTables& tables, const Objective& objective, const SearchScope& scope);

  struct Place {
    bool first = false;
    int stages_after = 0;
    int layers = 0;
    int mesh = 0;
  };
  std::uint32_t slot(const Place& place) const {
    const int stages = place.first ? max_stages_ + place.stages_after : place.stages_after;
    return static_cast<std::uint32_t>((stages * layers_ + place.layers - 1) * num_meshes_ + place.mesh);
  }
  Place place(std::uint32_t slot) const;
  const PointList& list(std::uint32_t slot) const { return lists_[slot]; }
  std::uint32_t num_slots() const { return static_cast<std::uint32_t>(lists_.size()); }

  /// Of all points, list by list: t, d, fill * t, and for the points from the list's begin up to this one the least
  /// d + fill * t and the point that has it.
  const double* t_s() const { return t_s_.data(); }
  const double* d_s() const { return d_s_.data(); }
  const double* fill_s() const { return fill_s_.data(); }
  const double* alone_s() const { return alone_s_.data(); }
  const std::uint32_t* alone_point() const { return alone_point_.data(); }
  std::size_t num_points() const { return t_s_.size(); }

  int layers() const { return layers_; }
  int num_meshes() const { return num_meshes_; }
  int mesh_units(int mesh) const { return mesh_units_[mesh]; }
  int min_mesh_units() const { return min_mesh_units_; }
  int max_mesh_units() const { return max_mesh_units_; }
  int units() const { return units_; }  ///< of all devices; 0 where the meshes cannot cover them exactly
  const SearchScope& scope() const { return scope_; }
  /// Least t * units / layers of any point: no stage does its layers with fewer unit-seconds.
  double least_work_s() const { return least_work_s_; }

  StageChoice choice(std::uint32_t slot, std::uint32_t point) const;

 private:
  void add(const std::vector<StagePoint>& points, const Place& place);

  SearchScope scope_;
  double fill_ = 1;
  int layers_ = 0;
  int num_meshes_ = 0;
  int max_stages_ = 0;
  int units_ = 0;
  int min_mesh_units_ = 0;
  int max_mesh_units_ = 0;
  double least_work_s_ = 0;
  std::vector<int> mesh_units_;
  std::vector<PointList> lists_;
  std::vector<double> t_s_, d_s_, fill_s_, alone_s_;
  std::vector<std::uint32_t> alone_point_;
  std::vector<int> choice_;
  std::vector<StagePoint> scratch_;
};

}  // namespace gantry::plan::internal
