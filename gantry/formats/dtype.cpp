#include "gantry/formats/dtype.h"

#include <fmt/ranges.h>

#include <array>
#include <limits>

#include "gantry/base/check.h"

namespace gantry::formats {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::size_t bytes;
};

constexpr std::array kRows{
    Row{DType::kBool, "BOOL", 1},      Row{DType::kU8, "U8", 1},          Row{DType::kI8, "I8", 1},
    Row{DType::kF8E4M3, "F8_E4M3", 1}, Row{DType::kF8E5M2, "F8_E5M2", 1}, Row{DType::kF8E8M0, "F8_E8M0", 1},
    Row{DType::kI16, "I16", 2},        Row{DType::kU16, "U16", 2},        Row{DType::kF16, "F16", 2},
    Row{DType::kBF16, "BF16", 2},      Row{DType::kI32, "I32", 4},        Row{DType::kU32, "U32", 4},
    Row{DType::kF32, "F32", 4},        Row{DType::kI64, "I64", 8},        Row{DType::kU64, "U64", 8},
    Row{DType::kF64, "F64", 8},        Row{DType::kC64, "C64", 8},
};

const Row& row(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  GANTRY_CHECK(index < kRows.size(), "unknown element type number {}", index);
  GANTRY_ASSERT(kRows[index].dtype == dtype);
  return kRows[index];
}

}  // namespace

std::size_t dtype_bytes(DType dtype) { return row(dtype).bytes; }

std::string_view dtype_name(DType dtype) { return row(dtype).name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const Row& candidate : kRows) {
    if (candidate.name == name) return candidate.dtype;
  }
  return std::nullopt;
}

std::optional<std::int64_t> checked_numel(std::span<const std::int64_t> shape) {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, size, &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

std::optional<std::uint64_t> checked_bytes(std::span<const std::int64_t> shape, DType dtype) {
  const auto elements = checked_numel(shape);
  std::int64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements, static_cast<std::int64_t>(dtype_bytes(dtype)), &bytes)) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

std::int64_t numel(const TensorInfo& tensor) {
  const auto elements = checked_numel(tensor.shape);
  GANTRY_CHECK(elements.has_value(), "tensor '{}': shape {} has more than 2^63 elements", tensor.name,
               format_shape(tensor.shape));
  return *elements;
}

std::string format_shape(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace gantry::formats
