#pragma once
// Multi-head attention with grouped key/value heads, masks and dropout, on packed projections or on separate tensors.
//
// A key is visible to a query unless one of causal, row_starts, key_mask and mask hides it. A query that sees no key
// gives zeros, and its gradients are zero. NaN in what a query sees makes its output NaN, also where dropout drops it.
//
// Layout of `qkv` [B, T, (heads + 2 kv_heads) * head_dim]: the query heads, then the key heads, then the value heads of
// a token, as one fused projection writes them.
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "gantry/kernels/cpu/dropout_rule.h"

namespace gantry::kernels {

/// What packed_attention keeps of its inside for the backward pass, beside the projections.
enum class AttentionKeep {
  kLogSums,        ///< the output and one float a row and head: flash_attention
  kProbabilities,  ///< the output and the probabilities, their signs the dropout mask: stored_attention
  kAll             ///< what the operators of attention_reference keep; the oracle
};

struct AttentionOptions {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  double scale = 0;            ///< 0: 1 / sqrt(head_dim)
  bool causal = true;          ///< query t of T sees keys up to S - T + t of S: the last query sees all
  at::Tensor row_starts = {};  ///< int32 [B, T]: first position each query may see (packed documents), or undefined
  at::Tensor key_mask = {};    ///< uint8 or bool [B, S]: 0 hides a position (padding), or undefined
  at::Tensor mask = {};  ///< broadcastable to [B, heads, T, S], or undefined; bool: false hides a key; floating: added
                         ///< to the scaled scores, where -1e30 and less hide the key
  DropoutRule dropout = {};  ///< of the probabilities; attention_keep_mask() shows what it keeps
  /// Log-sums that are kept for a backward pass lie in the last bits of the output, no bytes of their own: fp32 and
  /// head_dim >= 32, else and for AttentionKeep::kProbabilities and kAll it changes nothing. Of a head's 32 first
  /// outputs each moves by at most one ulp (cpu/last_bits.h). A query that sees no key still gives zeros; where one
  /// that sees keys gives a zero, it may become 1.2e-38. A row with an infinity or NaN there makes its gradients NaN.
  bool log_sums_in_output = false;
};

/// Tables of cos and sin, fp32 [positions, head_dim / 2] each. Undefined tables: no rotary positions.
struct RopeTables {
  at::Tensor cosine, sine;
};

/// qkv as above -> [B, T, heads * head_dim]. Differentiable. Queries and keys are rotated by `rope` at `positions`
/// (int64 [B, T]) first. CONSUMES qkv: its storage is rotated in place and kept for the backward pass, so that no
/// second copy exists; pass a projection's output that nothing else reads. The mask gets no gradient.
at::Tensor packed_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const AttentionOptions& options, AttentionKeep keep = AttentionKeep::kLogSums);

/// q [B, T, heads, D], k and v [B, S, kv_heads, D], any strides -> contiguous [B, T, heads, D]; the sizes in `options`
/// are ignored. Differentiable in q, k, v and a floating mask, twice too (through attention_reference, which is slow).
/// Keeps q, k, v, the output and one float a row and head (none with log_sums_in_output); scores and dropout masks are
/// made again. A mask's gradient takes B heads T S floats for a moment.
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionOptions& options);

/// The same function, which keeps q, k, v, the output and the probabilities [B, heads, T, S] in q's type, whose sign
/// bits are the dropout mask: more memory, a fifth less work in the backward pass. Probabilities are rounded to q's
/// type before they meet v.
at::Tensor stored_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options);

/// Which probabilities `rule` keeps: bool [batch, heads, q_length, k_length] on the CPU. Element (b, h, t, j) has
/// position
/// ((b heads + h) q_length + t) R + j, with R = k_length rounded up to a multiple of 8.
at::Tensor attention_keep_mask(const DropoutRule& rule, std::int64_t batch, std::int64_t heads, std::int64_t q_length,
                               std::int64_t k_length);

/// A contiguous cache of keys and values of one layer, [B, capacity, kv_heads, head_dim] each.
struct KvSlices {
  at::Tensor keys, values;
};

/// Attention of T new tokens whose first one has position `length` in the cache; appends their keys and values. No
/// gradients. Token t of sequence b sees cache rows [starts[b], length + t] (starts int64 [B], or undefined for 0).
at::Tensor cached_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                            const AttentionOptions& options);

/// Softmax attention from ATen operators on q [B, T, H, D], k and v [B, S, H_kv, D]; the oracle, and what runs where
/// there is no raw kernel: head sizes that are no multiples of 16, other types and devices.
at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options);

}  // namespace gantry::kernels
