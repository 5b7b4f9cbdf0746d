#include "gantry/tensor/mapped.h"

#include <cstdint>
#include <cstring>

#include "gantry/base/check.h"

namespace gantry::tensor {

at::Tensor tensor_over(std::span<const std::byte> bytes, std::vector<std::int64_t> shape, at::ScalarType type,
                       std::shared_ptr<const void> owner) {
  const auto options = at::TensorOptions().dtype(type);
  const auto element = c10::elementSize(type);
  if (bytes.empty() || reinterpret_cast<std::uintptr_t>(bytes.data()) % element != 0) {
    at::Tensor copy = at::empty(shape, options);
    GANTRY_CHECK(copy.nbytes() == bytes.size(), "tensor of {} bytes over {} bytes of file", copy.nbytes(),
                 bytes.size());
    std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  auto* data = const_cast<std::byte*>(bytes.data());
  at::Tensor result = at::from_blob(data, shape, [owner = std::move(owner)](void*) mutable { owner.reset(); }, options);
  GANTRY_CHECK(result.nbytes() == bytes.size(), "tensor of {} bytes over {} bytes of file", result.nbytes(),
               bytes.size());
  return result;
}

}  // namespace gantry::tensor
