#pragma once
// All offload policies of one stage shape (mesh, dp, tp, micro-batch, mode): their prices as coefficients, and the
// Pareto-optimal ones for a given number of layers.
#include <limits>
#include <optional>
#include <vector>

#include "gantry/cost/stage.h"
#include "gantry/cost/stage_parts.h"
#include "gantry/plan/inter_stage.h"
#include "gantry/plan/space.h"

namespace gantry::plan {

/// A policy of a family with a checkpoint count.
struct PolicyChoice {
  int family = 0;
  int group = 0;
  int optimizer = 0;  ///< index into SearchSpace::optimizer
  int checkpointed = 0;
};

struct FrontPoint {
  double t_s = 0;
  double d_s = 0;
  PolicyChoice choice;
};

/// Points that no other beats in both t and d, kept sorted by t.
class Front {
 public:
  bool dominated(double t_s, double d_s) const;
  void insert(const FrontPoint& point);
  const std::vector<FrontPoint>& points() const { return points_; }
  void clear() { points_.clear(); }
  /// Points with t at or above the limit count as dominated.
  void limit(double t_s) { limit_s_ = t_s; }

 private:
  double limit_s_ = std::numeric_limits<double>::infinity();
  std::vector<FrontPoint> points_;
};

class StageFamily {
 public:
  /// `base` has micro-batch, dp, tp, mode and sequence parallelism set.
  StageFamily(const cost::CostModel& model, const SearchSpace& space, int mesh, const cost::Mesh& shape,
              const cost::Policy& base, int accumulation, int chunks, int index);

  /// Adds to `front` the best feasible policies of a stage. `warmup` as in cost::StageQuery; `alone`: one stage is the
  /// whole pipeline.
  void add_points(Front& front, Role role, double warmup, int layers, int checkpointed);

  cost::Policy policy(const PolicyChoice& choice) const;
  int mesh() const { return mesh_; }
  const cost::Mesh& shape() const { return shape_; }
  /// Fewest seconds that any policy needs for a micro-batch of one more layer.
  double least_layer_s() const { return least_layer_s_; }
  bool empty() const { return groups_.empty(); }

 private:
  /// What the offloaded optimizer states change.
  struct FirstForward {
    cost::PhaseSeconds layers;
    double post_gather_s = 0;
  };
  struct Group {
    cost::Policy policy;
    cost::StageParts parts;
    cost::StageSeconds seconds;                              // forward_first filled for ratio 0 only
    std::vector<std::optional<FirstForward>> first_forward;  // by optimizer ratio, made on demand
    double optimizer_bytes = 0;                              // of one layer, resident where nothing is offloaded
    double least_t_s = 0;                                    // an interior layer's
  };
  void add_groups(const cost::Policy& base);
  int least_optimizer_ratio(const Group& group, Role role, double warmup, int layers, int checkpointed) const;
  const FirstForward& first_forward(Group& group, int ratio);

  const cost::CostModel& model_;
  const SearchSpace& space_;
  int mesh_;
  cost::Mesh shape_;
  int accumulation_;
  int chunks_;
  int index_;
  const cost::Factors* factors_ = nullptr;
  std::vector<Group> groups_;
  double least_layer_s_ = 0;
};

}  // namespace gantry::plan
