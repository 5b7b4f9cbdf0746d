#pragma once
// Element types of tensors in files, under the names of the safetensors format, and size arithmetic that refuses to
// overflow: shapes come from files and are untrusted.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::formats {

enum class DType : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
  kC64,  ///< complex of two fp32
};

/// Bytes of one element.
std::size_t dtype_bytes(DType dtype);
/// "F32", "BF16", "I64", ...
std::string_view dtype_name(DType dtype);
/// The inverse of dtype_name; nothing when the name is unknown. Case matters.
std::optional<DType> parse_dtype(std::string_view name);

/// One tensor of a file. Shapes are row-major; a scalar has an empty shape.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0;  ///< first byte, from the start of the file
  std::uint64_t bytes = 0;   ///< length of the data
  std::uint32_t shard = 0;   ///< which file of a sharded model; 0 in a single file
};

/// Product of the sizes; nothing when a size is negative or the product of the sizes (zeros left out, so that strides
/// fit too) exceeds 2^63 - 1. The empty shape has one element.
std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape);

/// checked_numel times the element size, under the same limits.
std::optional<std::uint64_t> checked_bytes(std::span<const std::int64_t> shape, DType dtype);

/// Elements of a tensor that a reader of this module returned (hence known not to overflow).
std::int64_t numel(const TensorInfo& tensor);

/// "[2, 3]", for messages.
std::string format_shape(std::span<const std::int64_t> shape);

}  // namespace gantry::formats
