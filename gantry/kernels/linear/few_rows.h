#pragma once
// Linear layers on the few rows of decoding, without gradients; for the sources of operators.
#include <ATen/core/Tensor.h>

#include <vector>

namespace gantry::kernels {

/// At most kMaxSmallRows rows on the CPU in fp32 or bf16, contiguous [out, in] weights and biases.
bool few_rows_apply(const at::Tensor& x, const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases);

/// x [..., in] -> [..., sum of out_i]; streams the weights once.
at::Tensor few_rows_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                           const std::vector<at::Tensor>& biases);

}  // namespace gantry::kernels
