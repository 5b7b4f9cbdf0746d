#pragma once
// Multi-head attention on packed projections, with grouped key/value heads and rotary positions.
//
// Layout of `qkv` [B, T, (heads + 2 kv_heads) * head_dim]: the query heads, then the key heads, then the value heads of a
// token, as one fused projection writes them.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gantry::kernels {

struct AttentionOptions {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  double scale = 0;          ///< 0: 1 / sqrt(head_dim)
  bool causal = true;
  at::Tensor row_starts = {};  ///< int32 [B, T]: first position each query may see (packed documents), or undefined
  at::Tensor key_mask = {};    ///< uint8 or bool [B, T]: 0 hides a position (padding), or undefined
};

/// Tables of cos and sin, fp32 [positions, head_dim / 2] each. Undefined tables: no rotary positions.
struct RopeTables {
  at::Tensor cosine, sine;
};

/// qkv as above -> [B, T, heads * head_dim]. Differentiable. Queries and keys are rotated by `rope` at `positions` (int64
/// [B, T]) first. CONSUMES qkv: its storage is rotated in place and kept for the backward pass, so that no second copy
/// exists; pass a projection's output that nothing else reads. Rows that see no key give zeros.
at::Tensor packed_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const AttentionOptions& options);

/// A contiguous cache of keys and values of one layer, [B, capacity, kv_heads, head_dim] each.
struct KvSlices {
  at::Tensor keys, values;
};

/// Attention of T new tokens whose first one has position `length` in the cache; appends their keys and values. No
/// gradients. Token t of sequence b sees cache rows [starts[b], length + t] (starts int64 [B], or undefined for 0).
at::Tensor cached_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                            const AttentionOptions& options);

/// Softmax attention from ATen operators on q [B, T, H, D], k and v [B, S, H_kv, D]; the oracle, and what runs where there
/// is no raw kernel.
at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options);

}  // namespace gantry::kernels
