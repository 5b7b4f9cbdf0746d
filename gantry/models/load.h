#pragma once
// From files to a model: Hugging Face folders (safetensors) and GGUF files.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "gantry/models/language_model.h"
#include "gantry/text/tokenizer.h"

namespace gantry::models {

struct LoadOptions {
  /// Type of the parameters; nothing: that of the file (a quantised GGUF becomes bf16).
  std::optional<at::ScalarType> dtype = {};
  at::Device device = at::kCPU;
  /// Refuse weights that hold NaN or infinity (reads every weight once).
  bool check_finite = true;
  /// Copy the weights into memory on huge pages, in tensor-table order, instead of viewing the mapped file: decoding
  /// streams them 1.3 times as fast. CPU only; ignored elsewhere.
  bool resident = false;
};

/// Loads a folder in Hugging Face layout, a folder with one .gguf, or a .gguf file. On the CPU, in the file's own type,
/// safetensors are not copied: parameters are views of the mapped file and must not be written (trainers make their own
/// flat copy). The model is in evaluation mode. InputError when tensors are missing, left over, of other shapes, or
/// hold NaN.
std::shared_ptr<LanguageModel> load_model(const std::filesystem::path& path, const LoadOptions& options = {});

/// The configuration alone.
spec::ModelConfig load_config(const std::filesystem::path& path);

/// `path` itself, or the one .gguf file inside a folder without config.json.
std::filesystem::path resolve_model_path(const std::filesystem::path& path);

/// Writes config.json, model.safetensors (sharded above `max_shard_bytes`) in the model's type, and the tokeniser's
/// files (when given) into `dir`, which is made. transformers reads the result.
void save_model(const LanguageModel& model, const text::Tokenizer* tokenizer, const std::filesystem::path& dir,
                std::uint64_t max_shard_bytes = std::uint64_t{5} << 30);

}  // namespace gantry::models
