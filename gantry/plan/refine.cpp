// Continuous offload ratios (docs/plan.md).
#include <algorithm>

#include "gantry/plan/search.h"

namespace gantry::plan {
namespace {

using Ratio = double cost::Policy::*;

bool stage_fits(const cost::StageCost& cost, const cost::CostModel& model) {
  return cost.peak_bytes() <= model.device_bytes() && cost.host_bytes <= model.host_bytes_per_device();
}

// The least value of a ratio at which the stage still fits, found by bisection: memory falls as the ratio grows.
double least_ratio(cost::StageQuery query, Ratio ratio, const cost::CostModel& model) {
  double high = query.policy.*ratio;
  query.policy.*ratio = 0;
  if (stage_fits(model.price(query), model)) return 0;
  double low = 0;
  for (int step = 0; step < 12; ++step) {
    const double middle = (low + high) / 2;
    query.policy.*ratio = middle;
    (stage_fits(model.price(query), model) ? high : low) = middle;
  }
  return high;
}

}  // namespace

void refine_offload(TrainPlan& plan, const cost::CostModel& model) {
  evaluate(plan, model);
  if (!fits(plan, model)) return;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    for (const Ratio ratio : {&cost::Policy::activation_offload, &cost::Policy::weight_offload,
                              &cost::Policy::gradient_offload, &cost::Policy::optimizer_offload}) {
      cost::Policy& policy = plan.stages[i].policy;
      const double before = policy.*ratio;
      if (before == 0) continue;
      const double seconds = plan.predicted->iteration_s;
      policy.*ratio = least_ratio(stage_query(plan, static_cast<int>(i)), ratio, model);
      evaluate(plan, model);
      if (plan.predicted->iteration_s <= seconds) continue;
      policy.*ratio = before;
      evaluate(plan, model);
    }
  }
}

}  // namespace gantry::plan
