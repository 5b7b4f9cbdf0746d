#include "gantry/tensor/dtype.h"

#include "gantry/base/check.h"

namespace gantry::tensor {

at::ScalarType to_scalar_type(formats::DType dtype) {
  using formats::DType;
  switch (dtype) {
    case DType::kF64: return at::kDouble;
    case DType::kF32: return at::kFloat;
    case DType::kF16: return at::kHalf;
    case DType::kBF16: return at::kBFloat16;
    case DType::kI64: return at::kLong;
    case DType::kI32: return at::kInt;
    case DType::kI16: return at::kShort;
    case DType::kI8: return at::kChar;
    case DType::kU8: return at::kByte;
    case DType::kBool: return at::kBool;
    default: base::fail_input("element type {} can't be loaded into a tensor", formats::dtype_name(dtype));
  }
}

formats::DType to_file_dtype(at::ScalarType type) {
  using formats::DType;
  switch (type) {
    case at::kDouble: return DType::kF64;
    case at::kFloat: return DType::kF32;
    case at::kHalf: return DType::kF16;
    case at::kBFloat16: return DType::kBF16;
    case at::kLong: return DType::kI64;
    case at::kInt: return DType::kI32;
    case at::kShort: return DType::kI16;
    case at::kChar: return DType::kI8;
    case at::kByte: return DType::kU8;
    case at::kBool: return DType::kBool;
    default: base::fail_input("tensors of type {} can't be saved", c10::toString(type));
  }
}

at::ScalarType parse_dtype(std::string_view name) {
  if (name == "fp32" || name == "float32") return at::kFloat;
  if (name == "bf16" || name == "bfloat16") return at::kBFloat16;
  if (name == "fp16" || name == "float16") return at::kHalf;
  base::fail_input("dtype '{}' is not one of fp32, bf16, fp16", name);
}

std::string_view dtype_label(at::ScalarType type) {
  switch (type) {
    case at::kDouble: return "fp64";
    case at::kFloat: return "fp32";
    case at::kHalf: return "fp16";
    case at::kBFloat16: return "bf16";
    default: return c10::toString(type);
  }
}

}  // namespace gantry::tensor
