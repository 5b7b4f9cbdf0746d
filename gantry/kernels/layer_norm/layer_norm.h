#pragma once
// Layer normalisation over the last axis (Ba et al. 2016, section 3).
#include <ATen/core/Tensor.h>

#include <utility>

namespace gantry::kernels {

/// x [..., n], weight and bias [n] -> [..., n]. Differentiable; parameter gradients are reduced in fp32 for every
/// storage type.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// {x + residual, layer_norm(x + residual)} in one pass. Differentiable.
std::pair<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                 const at::Tensor& weight, const at::Tensor& bias, double eps);

/// The same from ATen operators; the oracle, and what runs where there is no raw kernel.
at::Tensor layer_norm_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

}  // namespace gantry::kernels
