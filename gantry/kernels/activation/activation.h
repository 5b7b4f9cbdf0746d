#pragma once
// Activations that keep their output instead of their input (Tempo, Andoorveedu et al. 2022, section 3.1): the next
// layer keeps the output anyway, so that the input's storage is free. The derivative comes from the output and the side
// of the minimum that the input lay on, by the signed-root fit of activation_fit.h.
#include <ATen/core/Tensor.h>

#include <string>

#include "gantry/kernels/activation/activation_raw.h"

namespace gantry::kernels {

struct ActivationOptions {
  Activation kind = Activation::kGeluErf;
  FitQuality quality = FitQuality::kAccurate;
  /// Kept beside the output: kByte n bytes, kBit ceil(n / 8), kLowBit none.
  SideFlag side = SideFlag::kBit;
  /// Writes the output over x where overwrite_refusal() has no objection: x then IS the output, as after x.relu_().
  bool overwrite = false;
};

/// f(x) in x's type, which is fp32, bf16, fp16 or fp64 on the CPU; elsewhere the composition of ATen operators below.
/// Keeps the output and the side flag for the backward pass; nothing where no gradient is wanted, and then no last bit
/// is marked either. fp64 inverts f by Newton's method instead of the fit. Differentiating the gradient again raises an
/// error. A NaN stays one, -infinity gives NaN as in torch, +infinity has the derivative 1.
at::Tensor activation(const at::Tensor& x, const ActivationOptions& options);

/// Why activation() would not write over x, or an empty string. It sees what autograd would refuse; that nothing else
/// reads x is the caller's to know (autograd finds out in the backward pass if another operator has kept x).
std::string overwrite_refusal(const at::Tensor& x);

/// f(x) from ATen operators, keeping what these keep.
at::Tensor activation_reference(const at::Tensor& x, Activation kind);

}  // namespace gantry::kernels
