#pragma once
// Tensors over memory-mapped files, without a copy.
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace gantry::tensor {

/// A read-only tensor over `bytes`; `owner` (the mapped file) lives as long as any view of the tensor. Falls back to a
/// copy when the bytes are not aligned to the element size. Writing to the tensor is an error of the caller: the
/// mapping is read-only and the process would be killed.
at::Tensor tensor_over(std::span<const std::byte> bytes, std::vector<std::int64_t> shape, at::ScalarType type,
                       std::shared_ptr<const void> owner);

}  // namespace gantry::tensor
