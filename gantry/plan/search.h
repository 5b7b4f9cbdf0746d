#pragma once
// The search for the fastest training plan that fits (Mist, EuroSys '25, section 5, with exact stage splits, true
// Pareto sets and more knobs; docs/plan.md).
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/stage.h"
#include "gantry/plan/space.h"
#include "gantry/plan/types.h"

namespace gantry::plan {

struct SearchInput {
  spec::ModelConfig model;
  std::string model_name;
  cost::Cluster cluster;
  cost::Profile profile;
  std::int64_t sequence = 2048;
  std::int64_t global_batch = 32;
  cost::CostOptions cost;
};

/// Seconds of an iteration, by something more exact than the closed form (the simulator).
using Arbiter = std::function<double(const TrainPlan&, const cost::CostModel&)>;

struct SearchOptions {
  SearchSpace space;
  bool least_bad = true;  ///< where nothing fits, look for what fits least badly (several more searches)
  int best = 3;           ///< plans ranked and handed to the arbiter
  /// Called with the share done of the space being searched, 0 to 1; throw to stop.
  std::function<void(double)> progress;
};

struct PassTime {
  std::string name;
  double seconds = 0;
};

struct SearchResult {
  /// Best first, with predictions; different in accumulation, schedule or the shape of a stage. Empty: nothing fits.
  std::vector<TrainPlan> ranked;
  /// Where nothing fits: the plan that exceeds the memory least, with predictions.
  std::vector<TrainPlan> least_bad;
  std::vector<PassTime> passes;
  std::int64_t stages_priced = 0;
  cost::ProvenanceCount provenance;
  bool feasible() const { return !ranked.empty(); }
};

/// InputError for a batch, sequence or cluster that no plan can serve whatever the memory.
SearchResult search(const SearchInput& input, const SearchOptions& options, const Arbiter& arbiter = {});

/// The cost model that prices a plan (its dtype, attention and loss settings win over those of `input`).
std::unique_ptr<cost::CostModel> cost_model(const SearchInput& input, const TrainPlan& plan);

/// Price of a plan under the model: fills `predicted` of the plan and of its stages.
void evaluate(TrainPlan& plan, const cost::CostModel& model);
/// The query that prices stage `index`.
cost::StageQuery stage_query(const TrainPlan& plan, int index);
/// Iteration seconds from the stages' predictions: closed form of the schedule.
double closed_form_s(const TrainPlan& plan, const cost::CostModel& model);
/// Whether device and host memory of every stage fit.
bool fits(const TrainPlan& plan, const cost::CostModel& model);

/// Lowers offload ratios of each stage as far as memory allows where that makes the plan faster (bisection). The plan
/// must fit.
void refine_offload(TrainPlan& plan, const cost::CostModel& model);

}  // namespace gantry::plan
