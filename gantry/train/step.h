#pragma once
// One optimiser step: micro-batches forward and backward, clipping, update.
#include <cstdint>
#include <memory>
#include <optional>
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

  /// Whether steps have several micro-batches, which decides the gradients' type.
  void set_several(bool several);

  /// Forward and backward of a micro-batch with the model's memory modes; no update, and torch's generator is left as
  /// it was. The first gives the most bytes that were resident in it, the second its seconds, as they are when its
  /// gradients add to those before it (set_several). Nothing when memory ran out.
  std::optional<std::uint64_t> probe_peak_bytes(const TrainBatch& batch);
  std::optional<double> probe_seconds(const TrainBatch& batch);
  /// Arbitrary ids [rows, tokens], every one of which counts: a micro-batch that takes the most memory.
  TrainBatch fullest_batch(std::int64_t rows, std::int64_t tokens) const;

  FlatParameters& parameters() { return *parameters_; }
  FlatAdamw& optimizer() { return *optimizer_; }

 private:
  double forward_backward(const TrainBatch& batch, double normalizer);
  void collect_stray_gradients();
  void probe(const TrainBatch& batch);

  models::LanguageModel& model_;
  Schedule schedule_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<FlatAdamw> optimizer_;
  bool several_;
};

}  // namespace gantry::train
