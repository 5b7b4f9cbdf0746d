#pragma once
// What a forward pass shares between its layers, and the attention step that uses it.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "gantry/kernels/attention/attention.h"
#include "gantry/layers/kv_cache.h"
#include "gantry/layers/linear.h"
#include "gantry/layers/memory_mode.h"

namespace gantry::layers {

struct AttentionContext {
  kernels::RopeTables rope;  ///< undefined: no rotary positions
  at::Tensor positions;      ///< int64 [B, T]
  at::Tensor row_starts;     ///< int32 [B, T] or undefined; training on packed documents
  at::Tensor key_mask;       ///< bool [B, T] or undefined; padding of encoders
  KvCache* cache = nullptr;  ///< null: no cache, whole sequences
  double dropout = 0.0;      ///< on attention probabilities; training only
};

struct HeadSizes {
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_dim;
  bool causal;
};

/// x [B, T, hidden] through the projections (queries, keys and values: three, or one that packs them) and attention ->
/// [B, T, heads * head_dim], the input of the output projection. Rotates, appends to the cache and masks as `context`
/// says. Dropout draws its seed from torch's generator before anything is computed, so every mode drops the same
/// elements. `layer` is the cache's slot.
at::Tensor attend(const at::Tensor& x, const std::vector<const LinearImpl*>& projections, const HeadSizes& sizes,
                  const AttentionContext& context, std::size_t layer, MemoryMode memory);

/// cos and sin tables, fp32 [positions, inverse.size()], scaled by `factor`.
kernels::RopeTables make_rope_tables(const std::vector<float>& inverse, float factor, std::int64_t positions,
                                     at::Device device);

}  // namespace gantry::layers
