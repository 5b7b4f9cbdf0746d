#include "gantry/spec/memory.h"

#include "gantry/base/check.h"

namespace gantry::spec {
namespace {

std::uint64_t times(std::uint64_t count, std::uint64_t bytes) {
  std::uint64_t product = 0;
  GANTRY_CHECK(!__builtin_mul_overflow(count, bytes, &product), "memory: {} elements of {} bytes exceed 64 bits", count,
               bytes);
  return product;
}

std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  GANTRY_CHECK(!__builtin_add_overflow(a, b, &sum), "memory: {} and {} bytes exceed 64 bits", a, b);
  return sum;
}

}  // namespace

MemoryByPurpose memory_summary(const ModelConfig& config, int dtype_bytes) {
  GANTRY_CHECK(dtype_bytes == 1 || dtype_bytes == 2 || dtype_bytes == 4 || dtype_bytes == 8,
               "memory: an element of {} bytes, expected 1, 2, 4 or 8", dtype_bytes);
  const auto width = static_cast<std::uint64_t>(dtype_bytes);
  constexpr std::uint64_t kFp32 = 4;
  MemoryByPurpose memory;
  for (const TensorSpec& tensor : tensor_table(config)) {
    const auto elements = static_cast<std::uint64_t>(tensor.numel());
    memory.parameters = plus(memory.parameters, elements);
    std::uint64_t& role = memory.weight_bytes_by_role[static_cast<std::size_t>(tensor.role)];
    role = plus(role, times(elements, width));
  }
  memory.weight_bytes = memory.gradient_bytes = times(memory.parameters, width);
  // Weight and remainder together hold the master (train/flat_parameters.h).
  memory.master_remainder_bytes = width < kFp32 ? times(memory.parameters, kFp32 - width) : 0;
  memory.optimizer_bytes = times(memory.parameters, 2 * kFp32);
  if (config.is_decoder()) {
    const auto row = static_cast<std::uint64_t>(config.num_layers) * static_cast<std::uint64_t>(config.kv_size());
    memory.kv_cache_bytes_per_token = times(row, 2 * width);
  }
  plus(plus(memory.weight_bytes, memory.gradient_bytes), plus(memory.master_remainder_bytes, memory.optimizer_bytes));
  return memory;
}

}  // namespace gantry::spec
