#pragma once
// The exact split of layers and devices over pipeline stages (in place of Mist's MILP; docs/plan.md). Costs come in as
// tables, so that the search is testable without a model.
#include <limits>
#include <span>
#include <vector>

namespace gantry::plan {

/// One way to run a stage.
struct StagePoint {
  double t_s = 0;  ///< steady-state seconds of a micro-batch
  double d_s = 0;  ///< extra of the first and last micro-batch
  int choice = 0;  ///< the caller's index
};

enum class Role { kOnly, kFirst, kMiddle, kLast };

/// Points of a stage by role, stages after it (0 for kOnly and kLast, 1 or more for the others), layers and mesh. The
/// caller fills them; an empty list is infeasible.
class StageTables {
 public:
  /// `mesh_devices`: devices of each mesh shape. Stages number at most `max_stages`.
  StageTables(int layers, std::vector<int> mesh_devices, int max_stages);

  int layers() const { return layers_; }
  int max_stages() const { return max_stages_; }
  const std::vector<int>& mesh_devices() const { return mesh_devices_; }
  std::vector<StagePoint>& at(Role role, int stages_after, int layers, int mesh);
  const std::vector<StagePoint>& at(Role role, int stages_after, int layers, int mesh) const;

 private:
  std::size_t index(Role role, int stages_after, int layers, int mesh) const;
  int layers_;
  std::vector<int> mesh_devices_;
  int max_stages_;
  std::vector<std::vector<StagePoint>> points_;
};

struct StageChoice {
  int layers = 0;
  int mesh = 0;
  StagePoint point;
};

/// T = steady * max_i t_i + fill * sum_i t_i + max(0, max_i (d_i - fill * sum_{j<i} t_j)).
/// 1F1B: steady = G - 1, fill = 1 (Mist, EuroSys '25, eq. of section 5.4). Interleaved over v chunks: steady = G - 1/v,
/// fill = 1/v.
struct Objective {
  double steady = 0;
  double fill = 1;
};

struct InterStageOptions {
  /// Stages use equal meshes (Mist's released search).
  bool uniform_mesh = false;
  /// 0, or exactly this many stages.
  int stages = 0;
  /// Only plans cheaper than this are of interest.
  double incumbent_s = std::numeric_limits<double>::infinity();
  /// Plans wanted, best first, different in some stage's layers, mesh or point.
  int best = 1;
};

struct InterStageResult {
  double iteration_s = std::numeric_limits<double>::infinity();
  std::vector<StageChoice> stages;  ///< first stage first
};

double iteration_s(std::span<const StageChoice> stages, const Objective& objective);

/// The best ways to cover all layers and exactly `devices` devices, cheapest first; at most `best`, none where no plan
/// costs less than the incumbent. Exact up to rounding, for any points (they need not be Pareto-optimal).
/// Method: with E = max(fill * sum t, max_i (d_i + fill * sum_{j >= i} t_j)) the objective is steady * max t + E, and
/// E grows stage by stage from the first to the last. For a cap on max t the least E is a dynamic program over (stages
/// after, layers, devices) that serves all stage counts at once; a branch-and-bound over the values of t chooses the
/// caps. This replaces labels (sum t, max t, D) by single numbers.
/// InputError: a point with t < 0 or not finite, options out of range, more states than memory should hold.
std::vector<InterStageResult> inter_stage(const StageTables& tables, int devices, const Objective& objective,
                                          const InterStageOptions& options = {});

/// Keeps the points that no other beats in both t and d; sorted by t.
void pareto(std::vector<StagePoint>& points);

}  // namespace gantry::plan
