#pragma once
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

/// ids int64 [...], weight [vocab, n] -> [..., n]. Differentiable in the weight; with an active tensor::GradientSinks
/// the gradient adds to its slot row by row, so no [vocab, n] temporary is made. Ids outside the table: InputError.
at::Tensor embedding(const at::Tensor& ids, const at::Tensor& weight);

}  // namespace gantry::kernels
