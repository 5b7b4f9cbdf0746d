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

/// Seconds of a stage under a policy.
struct FrontPoint {
  double t_s = 0;
  double d_s = 0;
  PolicyChoice choice;
};

/// Stages whose times are wanted.
struct StageRange {
  Role role = Role::kOnly;
  int layers = 1;
  int chunks = 1;
  double least_warmup = 0;      ///< of all stages that the times are for
  bool checkpoint_none = true;  ///< counts of checkpointed layers: 0,
  bool checkpoint_all = true;   ///< all,
  bool checkpoint_some = true;  ///< and what lies between
};

class StageFamily {
 public:
  /// `base` has micro-batch, dp, tp, mode and sequence parallelism set.
  StageFamily(const cost::CostModel& model, const SearchSpace& space, const cost::Mesh& shape, const cost::Policy& base,
              int accumulation);

  /// Appends every policy's seconds for a stage of this shape, no optimizer states offloaded, where t is below
  /// `limit_s`; without those that fit nowhere in the range. `index` is the family's, in the choices.
  void append_times(std::vector<FrontPoint>& times, const StageRange& range, int index, double limit_s) const;

  /// The same policy with the least offload of optimizer states at which the stage fits; nothing where none suffices.
  /// `warmup` as in cost::StageQuery.
  std::optional<FrontPoint> fit(const FrontPoint& time, Role role, double warmup, int layers);

  cost::Policy policy(const PolicyChoice& choice) const;
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
  int fewest_checkpointed(const Group& group, const StageRange& range) const;
  int least_optimizer_ratio(const Group& group, Role role, double warmup, int layers, int checkpointed) const;
  const FirstForward& first_forward(Group& group, int ratio);

  const cost::CostModel& model_;
  const SearchSpace& space_;
  cost::Mesh shape_;
  int accumulation_;
  const cost::Factors* factors_ = nullptr;
  std::vector<Group> groups_;
  double least_layer_s_ = 0;
};

}  // namespace gantry::plan
