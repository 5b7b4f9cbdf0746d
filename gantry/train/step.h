#pragma once
// One optimiser step: micro-batches forward and backward, clipping, update.
#include <cstdint>
#include <memory>
#include <vector>

#include "gantry/models/language_model.h"
#include "gantry/train/data.h"
#include "gantry/train/flat_parameters.h"
#include "gantry/train/optimizer.h"
#include "gantry/train/options.h"
#include "gantry/train/schedule.h"

namespace gantry::train {

struct StepReport {
  double loss;           ///< mean over the counted labels of all micro-batches
  double gradient_norm;  ///< before clipping
  double learning_rate;
  std::int64_t tokens;
  bool applied;  ///< false: loss or gradients were not finite, nothing changed
};

class StepRunner {
 public:
  /// Moves the model's trainable parameters (all, or low-rank updates which it attaches) into flat buffers.
  StepRunner(models::LanguageModel& model, const TrainOptions& options);

  StepReport step(const std::vector<TrainBatch>& batches, std::int64_t step);

  /// Forward and backward of [batch, tokens] arbitrary ids with the model's memory modes; no update, and torch's
  /// generator is left as it was. Returns the most bytes that were resident in it.
  std::uint64_t probe_peak_bytes(std::int64_t batch, std::int64_t tokens);

  FlatParameters& parameters() { return *parameters_; }
  FlatAdamw& optimizer() { return *optimizer_; }

 private:
  double forward_backward(const TrainBatch& batch, double normalizer);
  void collect_stray_gradients();

  models::LanguageModel& model_;
  Schedule schedule_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<FlatAdamw> optimizer_;
};

}  // namespace gantry::train
