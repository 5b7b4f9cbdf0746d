#pragma once
// The language-model head and its loss in one operator, a chunk of tokens at a time: the [tokens, vocab] logits never
// exist, and the gradients are formed from a chunk's logits in place.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gantry::kernels {

/// kMean divides the summed loss by LinearCrossEntropyOptions::normalizer; kSum does not.
enum class LossReduction { kMean, kSum };

struct LinearCrossEntropyOptions {
  /// What kMean divides by; usually the number of labels that count in the whole optimiser step. 0: those of this call,
  /// and 1 where none counts, so that the loss is then 0 (torch gives NaN).
  double normalizer = 0;
  /// Bytes of logits alive at a time; 0: as linear_cross_entropy_chunk_rows. A chunk has at least 16 tokens.
  std::int64_t chunk_bytes = 0;
  LossReduction reduction = LossReduction::kMean;
  /// A label that does not count, besides negative ones, which never do.
  std::int64_t ignore_index = -100;
  /// The target is (1 - label_smoothing) onehot + label_smoothing / vocab, as in torch. 0 to 1.
  double label_smoothing = 0;
  /// Adds z_loss log^2(sum exp(logits)) to each token's loss, which keeps the logits from drifting.
  double z_loss = 0;
};

/// hidden [..., n], weight [vocab, n], bias [vocab] or undefined, labels int64 [...] -> scalar, the reduced loss of
/// softmax(hidden W^T + b). Tokens whose label does not count cost nothing and get a zero gradient, whatever hidden has
/// there. hidden, weight and bias are of one type: fp32, bf16, fp16 or fp64; the loss is fp32, or fp64 for fp64.
///
/// Gradients are formed in this call, and only those of inputs that require one in gradient mode; backward() merely
/// scales them by what comes in, in place unless the graph is retained. Those of weight and bias are summed in fp32
/// (fp64 for fp64). fp16 is computed in fp32 with a copy of the weight, because entries of the softmax's gradient
/// underflow in it. Second derivatives raise an error.
///
/// With an active tensor::GradientSinks the gradients of the parameters that it knows are in their slots when the call
/// returns, summed in the slots' type; backward() must then start at the result itself (a gradient of 1), once.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& labels, const LinearCrossEntropyOptions& options = {});

/// Losses per token, fp32 (fp64 for fp64) [tokens], without gradients: what perplexity is summed from. Tokens that do
/// not count give 0. The options' normalizer and reduction are not used.
at::Tensor linear_cross_entropy_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                       const at::Tensor& labels, const LinearCrossEntropyOptions& options = {});

/// Tokens of a chunk: as many as fit `chunk_bytes` of logits, at least 16 (but never more than `tokens`), and about the
/// same number in every chunk. chunk_bytes 0 means 68 MiB of logits in fp32 and fp64, 24 MiB in bf16.
std::int64_t linear_cross_entropy_chunk_rows(std::int64_t tokens, std::int64_t vocab, at::ScalarType type,
                                             std::int64_t chunk_bytes = 0);

}  // namespace gantry::kernels
