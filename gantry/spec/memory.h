#pragma once
// Memory of a model by purpose: plain arithmetic over the tensor table, as `gantry info` prints it. What a training
// step needs for activations follows from the operator graph instead.
#include <array>
#include <cstdint>

#include "gantry/spec/config.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::spec {

inline constexpr std::size_t kTensorRoleCount = 6;

struct MemoryByPurpose {
  std::array<std::uint64_t, kTensorRoleCount> weight_bytes_by_role{};  ///< indexed by TensorRole
  std::uint64_t parameters = 0;
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_cache_bytes_per_token = 0;  ///< of one sequence; 0 for encoders

  // Full fine-tuning with AdamW on one device, without activations.
  std::uint64_t gradient_bytes = 0;          ///< of the weights' width: one micro-batch a step
  std::uint64_t master_remainder_bytes = 0;  ///< what narrower weights lack of their fp32 masters
  std::uint64_t optimizer_bytes = 0;         ///< two fp32 moments

  std::uint64_t role_bytes(TensorRole role) const { return weight_bytes_by_role[static_cast<std::size_t>(role)]; }
  std::uint64_t training_bytes() const {
    return weight_bytes + gradient_bytes + master_remainder_bytes + optimizer_bytes;
  }
};

/// `dtype_bytes` is the width of weights, gradients and cached keys and values: 4 for fp32, 2 for bf16. InputError for
/// a width that is not 1, 2, 4 or 8, and for a model of more bytes than 64 bits count.
MemoryByPurpose memory_summary(const ModelConfig& config, int dtype_bytes);

}  // namespace gantry::spec
