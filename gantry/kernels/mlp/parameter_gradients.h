#pragma once
// Gradients of a linear layer's parameters inside a larger node; for the sources of operators.
#include <ATen/core/Tensor.h>

#include "gantry/kernels/gemm/gemm.h"
#include "gantry/kernels/linear/linear.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {

/// Gradient of `weight` in y2 = x2 weight^T (kOutIn) or x2 weight: returned, or added to its slot.
at::Tensor weight_gradient(const at::Tensor& weight, const at::Tensor& x2, const at::Tensor& dy2, WeightLayout layout);

/// Sum of dy2's rows in bias's type: returned, or added to its slot.
at::Tensor bias_gradient(const at::Tensor& bias, const at::Tensor& dy2);

/// Gradient of the input of a linear layer.
inline at::Tensor input_gradient(const at::Tensor& weight, const at::Tensor& dy2, WeightLayout layout) {
  return matrix_product(dy2, layout == WeightLayout::kOutIn ? weight : weight.t());
}

/// Buffers kept for the backward pass may be overwritten: no later pass will want them.
bool kept_buffers_are_free();

}  // namespace gantry::kernels
