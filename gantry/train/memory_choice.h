#pragma once
// What `gantry train` chooses by measuring on its own model and data before the first step: memory modes for a
// micro-batch, and the micro-batch itself (--memory-mode, --memory-budget, --batch auto).
#include <cstdint>

#include "gantry/models/language_model.h"
#include "gantry/train/data.h"
#include "gantry/train/micro_batch.h"
#include "gantry/train/options.h"
#include "gantry/train/step.h"

namespace gantry::train {

/// Weights, optimiser, data position and torch's generator stay as they are. base::Interrupted after SIGINT,
/// InfeasibleError for a budget that nothing fits.
class MemoryChoice {
 public:
  MemoryChoice(models::LanguageModel& model, StepRunner& runner, const TrainData& data, const TrainOptions& options)
      : model_(model), runner_(runner), data_(data), options_(options) {}

  /// Sets the model's modes for micro-batches of this size, by the options.
  void choose_modes(std::int64_t micro_batch);
  /// Chooses the micro-batch and sets model and runner up for it.
  MicroBatchPlan choose_micro_batch();

 private:
  MemoryPlan fit(std::int64_t micro_batch, std::uint64_t budget_bytes);
  std::optional<double> step_seconds(const MicroBatchTrial& trial);
  /// Says how much even the smallest choice takes, where that can be measured.
  void require(MemoryPlan plan, std::int64_t micro_batch, std::uint64_t budget_bytes, std::string_view advice);

  models::LanguageModel& model_;
  StepRunner& runner_;
  const TrainData& data_;
  const TrainOptions& options_;
};

}  // namespace gantry::train
