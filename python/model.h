#pragma once
// gantry.Model: a model and its tokeniser.
#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "gantry/models/language_model.h"
#include "gantry/text/tokenizer.h"

namespace gantry::python {

struct Model {
  std::shared_ptr<models::LanguageModel> network;
  std::shared_ptr<text::Tokenizer> tokenizer;  ///< null when the model came without one
  std::string source;                          ///< path, or "" for a configuration given as a dict
  std::int64_t trainers = 0;                   ///< Trainers made so far; only the newest owns the parameters
  bool has_lora = false;                       ///< low-rank updates are attached and not merged
};

/// Optional tensors of a forward pass, as Python gives them; shapes and types as in models::ModelInputs.
struct InputTensors {
  std::optional<at::Tensor> positions, row_starts, key_mask, token_types;
};

/// Checked inputs, converted to the types that models take. InputError names the tensor that does not fit.
models::ModelInputs make_inputs(const Model& model, const at::Tensor& ids, const InputTensors& others);

/// `labels` checked and converted, or without any the next tokens of `ids` (the last position then counts for nothing).
/// InputError when labels do not fit, or are missing for an encoder.
at::Tensor make_labels(const Model& model, const at::Tensor& ids, const std::optional<at::Tensor>& labels);

/// Gives parameters that are views of a mapped, read-only file memory of their own.
void make_parameters_writable(models::LanguageModel& network);

/// Folder in Hugging Face layout: the model in its type, and its tokeniser.
void save(const Model& model, const std::filesystem::path& path);

}  // namespace gantry::python
