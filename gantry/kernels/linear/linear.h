#pragma once
// y = x W^T + b, for one weight or for several that share their input.
#include <ATen/core/Tensor.h>

#include <vector>

#include "gantry/kernels/stash/stash.h"

namespace gantry::kernels {

enum class WeightLayout {
  kOutIn,  ///< [out, in], torch's Linear
  kInOut,  ///< [in, out], GPT-2's Conv1D
};

/// x [..., in], weight by `layout`, bias [out] or undefined -> [..., out]. Differentiable, twice too unless x had to be
/// copied to rows or slots are active (an error then). With an active tensor::GradientSinks the weight gradient goes to
/// its slot. Kept: x, where a weight wants a gradient. Without gradients, up to 8 rows on the CPU in fp32 or
/// bf16 take a kernel that streams the weight once at memory speed with fp32 accumulation.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {},
                  WeightLayout layout = WeightLayout::kOutIn);

/// The outputs of several [out_i, in] weights side by side: [..., sum of out_i]. Weights that lie one behind the other
/// in memory (as tensor-table order lays them out) take one matrix product. `biases` is empty or one per weight.
at::Tensor fused_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                        const std::vector<at::Tensor>& biases = {});

/// linear() and fused_linear() that keep x for the weight gradients in int8: stashed_bytes(x.numel()), nothing where no
/// weight wants a gradient. Values, input and bias gradients are the same, weight gradients those of unstash(stash(x)).
/// Differentiable once.
at::Tensor linear_int8_input(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {},
                             WeightLayout layout = WeightLayout::kOutIn);
at::Tensor fused_linear_int8_input(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                                   const std::vector<at::Tensor>& biases = {});

/// One view over matrices that are neighbours in one storage along axis 0, else an undefined tensor.
at::Tensor view_adjacent(const std::vector<at::Tensor>& parts);

}  // namespace gantry::kernels
