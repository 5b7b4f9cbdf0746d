#pragma once
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

/// Sum of a contiguous fp32 CPU tensor, read once by all threads at the speed of memory; for measuring that speed.
double stream_sum(const at::Tensor& x);

}  // namespace gantry::kernels
