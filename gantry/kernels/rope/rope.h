#pragma once
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

/// Rotates x [rows, heads, head_dim] (last axis contiguous, heads adjacent) in place at int64 positions [rows];
/// `inverse` rotates backwards, which is the gradient. cosine and sine are fp32 [positions, head_dim / 2]. Pairs are
/// (i, i + head_dim / 2). No autograd.
void rope_(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& cosine, const at::Tensor& sine,
           bool inverse = false);

}  // namespace gantry::kernels
