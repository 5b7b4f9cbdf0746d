#pragma once
// The language-model head and its loss in one operator, a chunk of tokens at a time: the [tokens, vocab] logits never
// exist, and the gradients are formed while a chunk's logits are in cache.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gantry::kernels {

struct LinearCrossEntropyOptions {
  /// Divides the summed loss; usually the number of labels that count in the whole optimiser step. 0: that of this call.
  double normalizer = 0;
  /// Bytes of logits alive at a time; 0: 96 MiB in fp32, 24 MiB in other types.
  std::int64_t chunk_bytes = 0;
};

/// hidden [..., n], weight [vocab, n], bias [vocab] or undefined, labels int64 [...] (negative: ignored) -> scalar fp32
/// sum of -log softmax(hidden W^T + b)[label] / normalizer. With an active tensor::GradientSinks the weight's gradient is
/// in its slot when the call returns, and backward() must be called on the result itself (a gradient of 1).
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& labels, const LinearCrossEntropyOptions& options = {});

/// Losses per token, fp32 [tokens], without gradients: what perplexity is summed from. Ignored tokens give 0.
at::Tensor linear_cross_entropy_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                       const at::Tensor& labels, const LinearCrossEntropyOptions& options = {});

}  // namespace gantry::kernels
