#include "gantry/layers/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace gantry::layers {
namespace {

// Dropout on probabilities needs them in memory; no rotary family trains with it.
at::Tensor attend_with_dropout(const at::Tensor& qkv, const HeadSizes& s, const AttentionContext& context) {
  const at::Tensor heads = qkv.view({qkv.size(0), qkv.size(1), s.heads + 2 * s.kv_heads, s.head_dim}).transpose(1, 2);
  const at::Tensor q = heads.narrow(1, 0, s.heads), k = heads.narrow(1, s.heads, s.kv_heads);
  const at::Tensor v = heads.narrow(1, s.heads + s.kv_heads, s.kv_heads);
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(s.head_dim));
  at::Tensor seen = at::ones({1, 1, qkv.size(1), qkv.size(1)}, scores.options().dtype(at::kBool));
  if (s.causal) seen = seen.tril();
  if (context.key_mask.defined()) seen = seen & context.key_mask.to(at::kBool).view({-1, 1, 1, qkv.size(1)});
  if (context.row_starts.defined()) {
    const at::Tensor keys = at::arange(qkv.size(1), context.row_starts.options()).view({1, 1, 1, -1});
    seen = seen & keys.ge(context.row_starts.unsqueeze(1).unsqueeze(3));
  }
  scores = scores.masked_fill(~seen, -std::numeric_limits<double>::infinity());
  const at::Tensor p = at::softmax(scores, -1, at::kFloat).masked_fill(~seen.any(-1, true), 0.0).to(qkv.scalar_type());
  return at::matmul(at::dropout(p, context.dropout, true), v).transpose(1, 2).reshape({qkv.size(0), qkv.size(1), -1});
}

}  // namespace

at::Tensor attend(const at::Tensor& qkv, const HeadSizes& sizes, const AttentionContext& context, std::size_t layer) {
  kernels::AttentionOptions options{.heads = sizes.heads,
                                    .kv_heads = sizes.kv_heads,
                                    .head_dim = sizes.head_dim,
                                    .causal = sizes.causal,
                                    .row_starts = context.row_starts,
                                    .key_mask = context.key_mask};
  if (context.cache != nullptr) {
    return kernels::cached_attention(qkv, context.rope, context.positions, context.cache->layer(layer),
                                     context.cache->length(), context.cache->starts, options);
  }
  if (context.dropout > 0 && !context.rope.cosine.defined()) return attend_with_dropout(qkv, sizes, context);
  return kernels::packed_attention(qkv, context.rope, context.positions, options);
}

kernels::RopeTables make_rope_tables(const std::vector<float>& inverse, float factor, std::int64_t positions,
                                     at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kFloat);
  at::Tensor frequencies = at::empty({static_cast<std::int64_t>(inverse.size())}, options);
  std::copy(inverse.begin(), inverse.end(), frequencies.data_ptr<float>());
  const at::Tensor angles = at::outer(at::arange(positions, options), frequencies);
  return {(angles.cos() * factor).to(device), (angles.sin() * factor).to(device)};
}

}  // namespace gantry::layers
