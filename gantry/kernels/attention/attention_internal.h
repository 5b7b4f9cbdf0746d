#pragma once
// Shared by attention.cpp and decode.cpp.
#include "gantry/kernels/attention/attention.h"

namespace gantry::kernels::internal {

/// options.scale, or 1 / sqrt(head_dim).
double effective_scale(const AttentionOptions& options);

/// cached_attention() of few tokens on the CPU in fp32 or bf16, arguments checked: rotate, append, attend on bare pointers. A
/// decoded token runs this in every layer, where a dozen tensor views would take longer than the attention.
at::Tensor decode_step(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                       const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                       const AttentionOptions& options);

}  // namespace gantry::kernels::internal
