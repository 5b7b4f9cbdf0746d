#pragma once
// Checkpoints: folders <run>/checkpoint-<step> that hold a usable model, the optimiser state and the position of the
// run. A checkpoint is written under another name, flushed, and renamed when complete; only then are older ones
// removed.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/train/flat_parameters.h"
#include "gantry/train/optimizer.h"

namespace gantry::train {

/// Complete checkpoints of a run by falling step.
std::vector<std::pair<std::int64_t, std::filesystem::path>> list_checkpoints(const std::filesystem::path& run);

/// Writes checkpoint-<step>: `write_model` fills the folder with the model (model.safetensors or its shards) or the
/// low-rank updates (kAdapterFile), which must hold every one of `parameters` by its name; then optimizer.safetensors
/// (what the model lacks: moments, remainders, random generator) and trainer.json (`state`). Keeps the newest `keep`.
/// Error when the disk is full; older checkpoints are intact.
std::filesystem::path write_checkpoint(const std::filesystem::path& run, std::int64_t step, std::int64_t keep,
                                       const FlatParameters& parameters, const FlatAdamw& optimizer,
                                       const base::OrderedJson& state,
                                       const std::function<void(const std::filesystem::path&)>& write_model);

/// Restores parameters, optimiser and the random generator; returns trainer.json. InputError when the folder does not
/// fit. Reads older checkpoints too, whose optimizer.safetensors holds the weights a second time.
base::Json read_checkpoint(const std::filesystem::path& checkpoint, FlatParameters& parameters, FlatAdamw& optimizer);

}  // namespace gantry::train
