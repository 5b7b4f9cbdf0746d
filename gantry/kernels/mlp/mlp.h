#pragma once
// Feed-forward blocks as one autograd node: the activation's output is computed again in the backward pass, in the
// kernel that needs its derivative anyway; what else is kept is a choice.
#include <ATen/core/Tensor.h>

#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/linear/linear.h"

namespace gantry::kernels {

/// What a block keeps for its backward pass. The block's input x is kept only where the first layer's weights want a
/// gradient, except by kInput, which needs it anyway; as a tensor it is shared with its producer.
enum class MlpMemory : std::int32_t {
  kActivationInput,  ///< x and the input of the activation. Exact
  kInput,  ///< x; the first layer is computed again, bit for bit, for its share of the block's products. Exact
  kInt8,   ///< both as stash() packs them: stashed_bytes() of each. All gradients see the unpacked ones
};

struct MlpParameters {
  at::Tensor weight1, bias1;  ///< [inner, in] by `layout`; [inner] or undefined
  at::Tensor weight2, bias2;  ///< [out, inner] by `layout`; [out] or undefined
  WeightLayout layout = WeightLayout::kOutIn;
};

/// linear2(f(linear1(x))): x [..., in] -> [..., out].
///
/// Differentiable once; differentiating the gradient again raises an error. Weight gradients go to the slots of an
/// active tensor::GradientSinks. The backward pass overwrites a kept input of f unless the graph is retained. fp32,
/// bf16, fp16 and fp64 on the CPU; elsewhere a composition of ATen operators: kActivationInput keeps what these keep,
/// the other modes run the composition as a rerun_segment().
at::Tensor mlp(const at::Tensor& x, const MlpParameters& parameters, Activation kind,
               MlpMemory memory = MlpMemory::kActivationInput);

struct GatedMlpParameters {
  at::Tensor gate, up;  ///< [inner, in] each; one matrix product where they are neighbours in memory
  at::Tensor down;      ///< [out, inner]
  at::Tensor gate_bias, up_bias, down_bias;  ///< [inner], [inner], [out] or undefined; the first two together
};

/// down(f(gate(x)) * up(x)), as mlp(): SwiGLU with kSilu, GEGLU with kGeluErf or kGeluTanh. The "input of the
/// activation" is gate(x) and up(x).
at::Tensor gated_mlp(const at::Tensor& x, const GatedMlpParameters& parameters, Activation kind,
                     MlpMemory memory = MlpMemory::kActivationInput);

}  // namespace gantry::kernels
