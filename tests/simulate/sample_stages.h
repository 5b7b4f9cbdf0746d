#pragma once
// Stages of given seconds for the simulator's tests, and the closed form they are compared with.
#include <algorithm>
#include <vector>

#include "gantry/base/random.h"
#include "gantry/simulate/pipeline.h"

namespace gantry::simulate {

/// One step of compute a phase.
inline cost::StagePhases plain_stage(double forward_s, double backward_s, double weight_gradient_s = 0) {
  cost::StagePhases phases;
  phases.forward = phases.forward_first = {{{forward_s, 0, 0, 0}, 0, 0, "layer"}};
  phases.backward = phases.backward_last = {{{backward_s, 0, 0, 0}, 0, 0, "layer"}};
  phases.weight_gradient_s = weight_gradient_s;
  return phases;
}

inline std::vector<cost::StagePhases> equal_stages(int count, const cost::StagePhases& phases) {
  return std::vector<cost::StagePhases>(static_cast<std::size_t>(count), phases);
}

inline double uniform(base::CounterRandom& random, double low, double high) {
  return low + (high - low) * random.uniform();
}

inline double steps_s(const std::vector<cost::LayerStep>& steps, const cost::Factors& factors) {
  double sum = 0;
  for (const cost::LayerStep& step : steps) sum += cost::overlap_s(step.alone_s, factors) + step.serial_s;
  return sum;
}

/// (G - 1) max t + sum t + max(0, d_i - sum_{j<i} t_j), transfers in t as in cost::CostModel::price.
inline double closed_form(const std::vector<cost::StagePhases>& stages, int accumulation) {
  double sum = 0, largest = 0, late = 0;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const cost::StagePhases& stage = stages[i];
    const double steady = steps_s(stage.forward, stage.factors) + steps_s(stage.backward, stage.factors);
    const double extreme = steps_s(stage.forward_first, stage.factors) + steps_s(stage.backward_last, stage.factors);
    late = std::max(late, extreme - steady - sum);
    const double t = steady + stage.p2p_s * ((i > 0 ? 1 : 0) + (i + 1 < stages.size() ? 1 : 0));
    sum += t;
    largest = std::max(largest, t);
  }
  return (accumulation - 1) * largest + sum + late;
}

/// Layers with work on all four channels, interference, serial seconds, additions of the first and the last
/// micro-batch, transfers.
inline cost::StagePhases random_stage(base::CounterRandom& random) {
  cost::StagePhases phases;
  for (double& factor : phases.factors.f) factor = uniform(random, 1, 2);
  const auto layers = static_cast<int>(1 + random.below(3));
  const auto steps = [&](double compute_s, double more, bool backward) {
    std::vector<cost::LayerStep> list;
    for (int i = 0; i < layers; ++i) {
      cost::LayerStep step;
      step.layer = backward ? layers - 1 - i : i;
      step.alone_s = {compute_s * uniform(random, 0.8, 1.2), more * uniform(random, 0, 2), uniform(random, 0, 1),
                      uniform(random, 0, 1)};
      for (std::size_t c = 1; c < 4; ++c) step.alone_s[c] *= random.below(2) == 0 ? 0 : 1;
      step.serial_s = random.below(2) == 0 ? 0 : 0.2;
      if (backward) step.recompute_s = step.alone_s[0] * (random.below(2) == 0 ? 0 : 0.3);
      list.push_back(step);
    }
    return list;
  };
  phases.forward = steps(1, 0.5, false);
  phases.forward_first = steps(1, 1, false);
  phases.backward = steps(2, 0.5, true);
  phases.backward_last = steps(2, 1, true);
  phases.forward_first.insert(phases.forward_first.begin(), {{0, 0.3, 0, 0}, 0, -1, "transfer"});
  phases.p2p_s = random.below(2) == 0 ? 0 : uniform(random, 0, 0.3);
  phases.weight_gradient_s = uniform(random, 0, 1);
  return phases;
}

}  // namespace gantry::simulate
