#pragma once
// Chooses how many sequences of an optimiser step go through the model at once, by samples a second. The search knows
// nothing of models: it asks for what a size takes and how long a step lasts, and is tested with made-up answers.
// Method: doubling, then bisection, over the sizes that fit a memory budget, each with the modes that fit it best.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/train/memory_plan.h"

namespace gantry::train {

/// Sizes of the micro-batches that `sequences` of a step are split into: as few as `micro_batch` sequences each allow,
/// equal up to one sequence, the larger first.
std::vector<std::int64_t> split_step(std::int64_t sequences, std::int64_t micro_batch);

/// The largest micro-batch of every way to split a step, ascending: of 8 sequences 1, 2, 3, 4, 8.
std::vector<std::int64_t> micro_batch_sizes(std::int64_t sequences);

/// A size that was tried.
struct MicroBatchTrial {
  std::int64_t micro_batch = 0;   ///< sequences of the largest micro-batch
  std::int64_t accumulation = 0;  ///< micro-batches of a step
  MemoryPlan memory;              ///< modes, peak, and whether it fits
  std::vector<double> seconds;    ///< of forward and backward of a step's sequences, one a round; empty: not timed
  double samples_per_s = 0;       ///< by the median; 0: not timed
};

struct MicroBatchPlan {
  std::vector<MicroBatchTrial> trials;  ///< ascending by size
  std::optional<std::size_t> chosen;    ///< of `trials`; empty: not even the smallest fits

  const MicroBatchTrial& best() const { return trials[*chosen]; }
};

/// What the search asks.
struct MicroBatchMeasure {
  /// Modes that fit the budget at this size, or the smallest choice that doesn't.
  std::function<MemoryPlan(std::int64_t micro_batch)> fit;
  /// Forward and backward of a step's sequences; nothing when memory ran out.
  std::function<std::optional<double>(const MicroBatchTrial&)> step_seconds;
};

/// Fits sizes, doubling from 1 until one does not fit and bisecting to the largest that does; times all that fit, in
/// interleaved rounds; then halves the gaps beside the fastest, until its neighbours were tried. The chosen size has
/// the highest samples_per_s, the smallest of equals. Exceptions of `measure` pass.
MicroBatchPlan search_micro_batch(std::int64_t sequences, const MicroBatchMeasure& measure);

/// A table of the trials.
std::string describe(const MicroBatchPlan& plan);

/// [{"micro_batch": 2, "accumulation": 4, "fits": true, "peak_bytes": ..., "samples_per_s": ..., "modes": [...],
/// "chosen": true}, ...]; a number that was not measured is null.
base::OrderedJson micro_batches_to_json(const MicroBatchPlan& plan);

}  // namespace gantry::train
