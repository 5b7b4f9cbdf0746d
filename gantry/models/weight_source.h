#pragma once
// Where load_model takes tensors from; one class a file format.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "gantry/spec/config.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::models {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const spec::ModelConfig& config() const = 0;
  /// Compares the file's headers with `table`, before anything of the configuration's size is allocated. InputError
  /// naming file and tensor when one is missing, of another shape, no floating-point numbers, or not in the table.
  virtual void check(const std::vector<spec::TensorSpec>& table) const = 0;
  /// The tensor in `dtype` (the file's own, or bf16 for quantised ones, when empty), shape spec.shape; errors as
  /// check().
  virtual at::Tensor read(const spec::TensorSpec& spec, std::optional<at::ScalarType> dtype) const = 0;
};

std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& path);

}  // namespace gantry::models
