#pragma once
// One run on one device: data in, checkpoints, metrics and a trained model out.
#include <cstdint>
#include <string>

#include "gantry/base/json.h"
#include "gantry/train/options.h"

namespace gantry::train {

struct TrainResult {
  std::int64_t steps = 0;        ///< completed, those before a resume included
  double first_loss = 0;         ///< of the first step of this call
  double final_loss = 0;         ///< of the last one
  double validation_before = 0;  ///< perplexity on held-out data; 0 without any
  double validation_after = 0;
  double tokens_per_s = 0;  ///< median over this call's steps
  std::uint64_t peak_memory_bytes = 0;
  bool interrupted = false;         ///< stopped by a signal, after writing a checkpoint
  std::int64_t micro_batch = 0;     ///< sequences of the largest micro-batch
  std::int64_t accumulation = 0;    ///< micro-batches of a step
  base::OrderedJson micro_batches;  ///< what --batch auto tried (micro_batches_to_json); null without it
};

/// Trains `model` (folder or .gguf) as `options` say. Writes into options.out: metrics.jsonl, checkpoint-<step> folders
/// and, at the end, the model itself. InputError for bad options or data; InfeasibleError for a memory budget that
/// nothing fits; Error when the loss stops being finite (the last checkpoint is intact) or the disk is full;
/// base::Interrupted after SIGINT before the first step, while memory is measured. `version` is recorded.
TrainResult train(const std::string& model, const TrainOptions& options, const std::string& version);

}  // namespace gantry::train
