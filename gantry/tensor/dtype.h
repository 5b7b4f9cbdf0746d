#pragma once
// Names of element types: files' (formats::DType), libtorch's, and the command line's.
#include <ATen/core/Tensor.h>

#include <string_view>

#include "gantry/formats/dtype.h"

namespace gantry::tensor {

/// libtorch's type for a file's; InputError when libtorch has none.
at::ScalarType to_scalar_type(formats::DType dtype);
/// The file's type for libtorch's; InputError for types that safetensors can't hold.
formats::DType to_file_dtype(at::ScalarType type);
/// "fp32", "bf16" or "fp16" as given on the command line.
at::ScalarType parse_dtype(std::string_view name);
/// Short name of a floating type: "fp32", "bf16", "fp16", "fp64".
std::string_view dtype_label(at::ScalarType type);

}  // namespace gantry::tensor
