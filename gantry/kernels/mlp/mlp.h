#pragma once
// Feed-forward blocks as one autograd node: only the block's input and the input of its activation are kept; the
// activation's output is computed again in the backward pass, in the kernel that needs its derivative anyway. Exact.
#include <ATen/core/Tensor.h>

#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/linear/linear.h"

namespace gantry::kernels {

struct MlpParameters {
  at::Tensor weight1, bias1;  ///< [inner, in] by `layout`; [inner] or undefined
  at::Tensor weight2, bias2;  ///< [out, inner] by `layout`; [out] or undefined
  WeightLayout layout = WeightLayout::kOutIn;
};

/// linear2(f(linear1(x))): x [..., in] -> [..., out].
///
/// Differentiable once; differentiating the gradient again raises an error. Weight gradients go to the slots of an
/// active tensor::GradientSinks. Kept: x and the input of f, in x's type. The backward pass overwrites the kept input
/// of f unless the graph is retained. fp32, bf16, fp16 and fp64 on the CPU; elsewhere a composition of ATen operators.
at::Tensor mlp(const at::Tensor& x, const MlpParameters& parameters, Activation kind);

struct GatedMlpParameters {
  at::Tensor gate, up;  ///< [inner, in] each; one matrix product where they are neighbours in memory
  at::Tensor down;      ///< [out, inner]
  at::Tensor gate_bias, up_bias, down_bias;  ///< [inner], [inner], [out] or undefined; the first two together
};

/// down(f(gate(x)) * up(x)), as mlp(): SwiGLU with kSilu, GEGLU with kGeluErf or kGeluTanh. Kept: x, gate(x) and up(x).
at::Tensor gated_mlp(const at::Tensor& x, const GatedMlpParameters& parameters, Activation kind);

}  // namespace gantry::kernels
