#include "gantry/tensor/mapped.h"

#include <cstdint>
#include <cstring>

#include "gantry/base/check.h"

namespace gantry::tensor {

at::Tensor tensor_over(std::span<const std::byte> bytes, std::vector<std::int64_t> shape, at::ScalarType type,
                       std::shared_ptr<const void> owner) {
  const auto options = at::TensorOptions().dtype(type);
  const auto element = c10::elementSize(type);
  // Before anything is allocated: the shape comes from a file.
  std::int64_t expected = static_cast<std::int64_t>(element);
  bool sane = true;
  for (const std::int64_t axis : shape) sane = sane && axis >= 0 && !__builtin_mul_overflow(expected, axis, &expected);
  GANTRY_CHECK(sane && static_cast<std::size_t>(expected) == bytes.size(),
               "tensor {} of {} does not fit {} bytes of file", c10::str(at::IntArrayRef(shape)), c10::toString(type),
               bytes.size());
  if (bytes.empty() || reinterpret_cast<std::uintptr_t>(bytes.data()) % element != 0) {
    at::Tensor copy = at::empty(shape, options);
    if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  auto* data = const_cast<std::byte*>(bytes.data());
  return at::from_blob(
      data, shape, [owner = std::move(owner)](void*) mutable { owner.reset(); }, options);
}

}  // namespace gantry::tensor
