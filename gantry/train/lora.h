#pragma once
// Low-rank fine-tuning: attach, save in PEFT's layout, load back.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gantry/models/language_model.h"
#include "gantry/train/flat_parameters.h"

namespace gantry::train {

/// PEFT's file of the updates, and what its tensor names start with.
inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
inline constexpr const char* kAdapterPrefix = "base_model.model.";

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 16;
};

/// Freezes the model and attaches updates to every projection of its blocks (attention and MLP). Returns the adapters'
/// parameters. `seed` fixes their initial values.
std::vector<NamedParameter> attach_lora(models::LanguageModel& model, const LoraOptions& options, std::uint64_t seed);

/// Folds the updates into the weights, which must be writable (see make_writable).
void merge_lora(models::LanguageModel& model);

/// Gives every parameter memory of its own, in place of a mapped file.
void make_writable(models::LanguageModel& model);

/// Writes adapter_model.safetensors and adapter_config.json into `dir`, readable by PEFT.
void save_adapter(const models::LanguageModel& model, const LoraOptions& options, const std::string& base_model,
                  const std::filesystem::path& dir);

}  // namespace gantry::train
