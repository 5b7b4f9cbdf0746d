#pragma once
// The best plans found so far, one for each accumulation, schedule and shape of stages.
#include <string>
#include <vector>

#include "gantry/plan/types.h"

namespace gantry::plan {

class Candidates {
 public:
  explicit Candidates(int keep) : keep_(static_cast<std::size_t>(keep)) {}
  /// A plan with its predicted iteration.
  void add(TrainPlan plan);
  /// What a new plan must beat to be of interest: 1.01 of the best, or the last one kept.
  double bound_s() const;
  double best_s() const;
  std::vector<TrainPlan> ranked() &&;

 private:
  struct Entry {
    std::string shape;
    TrainPlan plan;
  };
  std::size_t keep_;
  std::vector<Entry> entries_;  // best first
};

}  // namespace gantry::plan
