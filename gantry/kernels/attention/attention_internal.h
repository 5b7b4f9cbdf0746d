#pragma once
// Shared by the sources of the attention operators.
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/kernels/attention/attention.h"

namespace gantry::kernels::internal {

/// options.scale, or 1 / sqrt(head_dim).
double effective_scale(const AttentionOptions& options);

/// True where the tiled kernels take the call.
bool flash_applies(const at::Tensor& q, const AttentionOptions& options);

/// What the tiled kernels read and write, [B, T or S, heads, D] each with a contiguous last axis. k and v may be longer
/// than the k_length keys that count.
struct FlashInputs {
  at::Tensor q, k, v;
  std::int64_t k_length;
};

struct FlashResult {
  at::Tensor out;   ///< [B, T, heads, D]
  at::Tensor kept;  ///< lse, fp32 [B, heads, T], undefined where `out` carries it; or probabilities [B, heads, T, S] in
                    ///< q's type
};

/// Outputs of the backward kernels, allocated by the caller; `dscores` is undefined or fp32 zeros [B, heads, T, S].
struct FlashGradients {
  at::Tensor dq, dk, dv, dscores;
};

/// `in_output`: for a backward pass, with the log-sums in the last bits of the output where type and head size allow
/// it.
FlashResult run_flash(const FlashInputs& in, const AttentionOptions& options, bool in_output = false);
void run_flash_backward(const FlashInputs& in, const FlashResult& result, const at::Tensor& dout,
                        const AttentionOptions& options, const FlashGradients& to);
FlashResult run_stored(const FlashInputs& in, const AttentionOptions& options);
void run_stored_backward(const FlashInputs& in, const FlashResult& result, const at::Tensor& dout,
                         const AttentionOptions& options, const FlashGradients& to);

/// InputError unless mask and dropout are sound for [batch, heads, q_length, k_length]; `options` has its sizes filled
/// in.
void check_options(const AttentionOptions& options, std::int64_t batch, std::int64_t q_length, std::int64_t k_length);

/// Everything of `options` but its tensors, to and from a node.
void save_options(torch::autograd::AutogradContext* ctx, const AttentionOptions& options);
AttentionOptions saved_options(torch::autograd::AutogradContext* ctx);

/// cached_attention() of few tokens on the CPU in fp32 or bf16, arguments checked: rotate, append, attend on bare
/// pointers. A decoded token runs this in every layer, where a dozen tensor views would take longer than the attention.
at::Tensor decode_step(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                       const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                       const AttentionOptions& options);

}  // namespace gantry::kernels::internal
