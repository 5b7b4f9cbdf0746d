#pragma once
// Gated activation of Llama's MLP (Shazeer 2020, section 2).
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

/// gate_up [..., 2 n] -> silu(gate) * up [..., n]. Differentiable; keeps gate_up only.
at::Tensor swiglu(const at::Tensor& gate_up);

/// The same from ATen operators.
at::Tensor swiglu_reference(const at::Tensor& gate_up);

}  // namespace gantry::kernels
