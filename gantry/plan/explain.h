#pragma once
// Why a plan is the best: what binds it, what its time and memory are made of, what each knob is worth, why another
// choice loses.
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/stage.h"
#include "gantry/plan/search.h"

namespace gantry::plan {

struct StageExplanation {
  std::vector<cost::CostTerm> time;            ///< seconds of a micro-batch, largest first
  std::vector<cost::CostTerm> memory_forward;  ///< bytes, in a fixed order
  std::vector<cost::CostTerm> memory_backward;
  bool forward_peak = false;  ///< the forward peak is the higher one
};

struct PlanExplanation {
  std::vector<StageExplanation> stages;
  int slowest_stage = 0;
  double steady_s = 0;  ///< (G - fill) * slowest stage
  double fill_s = 0;    ///< fill * sum of stages: pipeline filling and draining
  double delta_s = 0;   ///< first and last micro-batch, beyond what the bubble hides
  /// One sentence: what keeps the plan from being faster ("stage 3's memory: 22.4 of 22.5 GiB; ...").
  std::string binding;
};

PlanExplanation explain(const TrainPlan& plan, const cost::CostModel& model);

struct KnobValue {
  std::string knob;
  double iteration_s = std::numeric_limits<double>::infinity();  ///< best plan without the knob; infinite: none fits
};
/// The search again without each knob of the space, by the closed form; slow knobs first. Given the best plan, with
/// predictions by the closed form, knobs that it does not use cost no search.
std::vector<KnobValue> knob_values(const SearchInput& input, const SearchOptions& options,
                                   const TrainPlan* best = nullptr);

/// Fixes parts of a space:
/// "tp=8,zero=3,stages=4,accumulation=16,micro_batch=1,checkpoint=all|none,schedule=1f1b,mode=store,offload=none,
/// sequence_parallel=on|off". InputError for an unknown key or a value outside the space's reach.
SearchSpace restrict_space(SearchSpace space, std::string_view restrictions);

/// The best plan under restrictions beside the best of all: the text answers `--why-not`.
struct WhyNot {
  SearchResult result;
  std::string answer;
};
WhyNot why_not(const SearchInput& input, const SearchOptions& options, const TrainPlan& best,
               std::string_view restrictions);

/// Where nothing fits: which memory is exceeded by how much in the least-bad plan, and what would make it fit.
std::string infeasibility(const SearchInput& input, const TrainPlan& least_bad);

}  // namespace gantry::plan
