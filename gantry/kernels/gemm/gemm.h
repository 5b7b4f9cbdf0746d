#pragma once
// Matrix products: the kernel of gemm_raw.h for fp32 where it is faster than the library that at::mm takes, at::mm
// elsewhere. On AMX operands and sums below 2^-126 are taken as zero. No autograd.
#include <ATen/core/Tensor.h>

#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {

/// Whether a [m, k] times b [k, n] takes the own kernel: fp32 on the CPU with AVX2, at least 64 rows, columns and
/// summands and 2^24 multiplications, operands with unit stride along one axis.
bool gemm_applies(const at::Tensor& a, const at::Tensor& b);

/// a b (+ bias [n], where defined) as a new tensor.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

/// c = a b (+ bias [n], where defined) for c [m, n], which must not overlap the operands.
void matrix_product_out(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

/// slot (+)= a b, as tensor::accumulate_product.
void add_matrix_product(tensor::GradientSlot& slot, const at::Tensor& a, const at::Tensor& b);

}  // namespace gantry::kernels
