#pragma once
// Gantry's and PyTorch's ways to train the same stack of layers, each in a process of its own, taken in turns.
#include <cstdint>
#include <string>
#include <vector>

#include "gantry/cli/layers_bench/suite.h"

namespace gantry::cli::layers_bench {

struct StepArm {
  bool gantry = false;
  std::string arm;  ///< of arm_memory(), or of bench/baselines/layers_blocks.py
  double dropout = 0.1;
  bool timed = true;  ///< false: only the largest batch is of interest

  /// "Gantry recompute", "PyTorch eager, no dropout"
  std::string name() const;
};

struct StepCase {
  std::string family;
  std::int64_t sequence_length = 0;
  std::int64_t budget_bytes = 0;
  std::int64_t batch = 0;        ///< 0: the largest that fits the budget
  std::int64_t timed_batch = 0;  ///< most that a timed step takes; 0: any
};

struct StepResult {
  StepArm arm;
  std::string missing;  ///< why there is nothing else here
  std::int64_t batch = 0;
  std::int64_t timed_batch = 0;
  std::int64_t growth_bytes = 0;           ///< at `batch`
  std::vector<double> samples_per_s = {};  ///< one a round; empty for an arm that was not timed

  double speed() const;  ///< median; 0 without rounds
  /// (largest - smallest) / median
  double spread() const;
};

inline constexpr std::int64_t kStepLayers = 4;

/// Results in the order of `arms`. Rounds only if `timed`. base::Interrupted after SIGINT.
std::vector<StepResult> measure_steps(const Bench& bench, const StepCase& settings, const std::vector<StepArm>& arms,
                                      bool timed);

/// Batch, memory and speed of every arm.
planner::BenchTable step_table(const std::string& name, const std::string& title,
                               const std::vector<StepResult>& results);

}  // namespace gantry::cli::layers_bench
