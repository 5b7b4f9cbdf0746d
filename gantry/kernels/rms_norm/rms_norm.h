#pragma once
// Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019, section 4).
#include <ATen/core/Tensor.h>

#include <utility>

namespace gantry::kernels {

/// x [..., n], weight [n] -> [..., n]; fp32 inside, one rounding at the end. Differentiable.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// {x + residual, rms_norm(x + residual)} in one pass. Differentiable.
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                               const at::Tensor& weight, double eps);

/// The same from ATen operators; the oracle, and what runs where there is no raw kernel.
at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace gantry::kernels
