#pragma once
// The loop over chunks of tokens behind linear_cross_entropy: logits, losses, and gradients. No autograd.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"

namespace gantry::kernels {

/// Which gradients are wanted.
struct HeadNeeds {
  bool hidden = false, weight = false, bias = false;
  bool any() const { return hidden || weight || bias; }
};

struct HeadProblem {
  at::Tensor hidden;     ///< [tokens, n], contiguous
  at::Tensor weight;     ///< [vocab, n]
  at::Tensor bias;       ///< [vocab] or undefined
  at::Tensor labels;     ///< int64 [counted], all in [0, vocab)
  at::Tensor positions;  ///< int64 [counted], the tokens that count; undefined: all of them
  double scale = 1;      ///< of the gradients
  double label_smoothing = 0, z_loss = 0;
  std::int64_t chunk_bytes = 0;
};

struct HeadResult {
  at::Tensor losses;  ///< [counted], fp32 or fp64
  /// Undefined where not wanted. fp32 for fp16 inputs, so that a scaled loss can bring them into fp16's range.
  at::Tensor dhidden, dweight, dbias;
  bool in_slot = false;  ///< a slot of the active GradientSinks took the gradient of the weight or of the bias
};

/// Losses of logits [rows, vocab] in fp32 or bf16 on the CPU, and their gradients times `scale` over the logits unless
/// it is 0 (cross_entropy_raw.h).
void softmax_losses(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& losses, double scale,
                    double label_smoothing = 0, double z_loss = 0);

HeadResult run_head(const HeadProblem& problem, HeadNeeds needs);

}  // namespace gantry::kernels
