#pragma once
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

/// True when a floating-point tensor holds neither NaN nor infinity.
bool all_finite(const at::Tensor& x);

}  // namespace gantry::kernels
