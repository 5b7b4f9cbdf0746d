#include "gantry/plan/candidates.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace gantry::plan {
namespace {

std::string shape_of(const TrainPlan& plan) {
  std::string shape = fmt::format("{} {} {}", plan.accumulation, schedule_name(plan.schedule), plan.chunks);
  for (const Stage& stage : plan.stages) {
    shape += fmt::format(" {}x{}/{}", stage.mesh.nodes, stage.mesh.per_node, stage.policy.tensor_parallel);
  }
  return shape;
}

constexpr double kNear = .01;

double seconds(const TrainPlan& plan) { return plan.predicted->iteration_s; }

}  // namespace

void Candidates::add(TrainPlan plan) {
  std::string shape = shape_of(plan);
  const auto same = std::ranges::find(entries_, shape, &Entry::shape);
  if (same != entries_.end()) {
    if (seconds(same->plan) <= seconds(plan)) return;
    entries_.erase(same);
  }
  const auto at = std::ranges::upper_bound(entries_, seconds(plan), {}, [](const Entry& e) { return seconds(e.plan); });
  entries_.insert(at, {std::move(shape), std::move(plan)});
  if (entries_.size() > keep_) entries_.pop_back();
}

double Candidates::bound_s() const {
  if (entries_.size() < keep_) return best_s() * (1 + kNear);
  return std::min(seconds(entries_.back().plan), best_s() * (1 + kNear));
}

double Candidates::best_s() const {
  return entries_.empty() ? std::numeric_limits<double>::infinity() : seconds(entries_.front().plan);
}

std::vector<TrainPlan> Candidates::ranked() && {
  std::vector<TrainPlan> plans;
  for (Entry& entry : entries_) plans.push_back(std::move(entry.plan));
  return plans;
}

}  // namespace gantry::plan
