#include "gantry/layers/attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "gantry/base/check.h"
#include "gantry/kernels/dropout/dropout.h"
#include "gantry/kernels/segment/segment.h"

namespace gantry::layers {
namespace {

at::Tensor project(const at::Tensor& x, const std::vector<const LinearImpl*>& projections, kernels::KeepInput keep) {
  return projections.size() == 1 ? projections[0]->forward(x, keep) : fused_forward(x, projections, keep);
}

kernels::AttentionKeep attention_keep(MemoryMode memory) {
  if (memory == MemoryMode::kStore) return kernels::AttentionKeep::kAll;
  if (memory == MemoryMode::kInPlace) return kernels::AttentionKeep::kProbabilities;
  return kernels::AttentionKeep::kLogSums;
}

}  // namespace

at::Tensor attend(const at::Tensor& x, const std::vector<const LinearImpl*>& projections, const HeadSizes& sizes,
                  const AttentionContext& context, std::size_t layer, MemoryMode memory) {
  kernels::AttentionOptions options{.heads = sizes.heads,
                                    .kv_heads = sizes.kv_heads,
                                    .head_dim = sizes.head_dim,
                                    .causal = sizes.causal,
                                    .row_starts = context.row_starts,
                                    .key_mask = context.key_mask,
                                    .log_sums_in_output = memory == MemoryMode::kRecompute};
  if (context.cache != nullptr) {
    return kernels::cached_attention(project(x, projections, kernels::KeepInput::kTensor), context.rope,
                                     context.positions, context.cache->layer(layer), context.cache->length(),
                                     context.cache->starts, options);
  }
  options.dropout = kernels::draw_dropout(context.dropout);
  const auto core = [options, rope = context.rope, positions = context.positions, memory](const at::Tensor& qkv) {
    return kernels::packed_attention(qkv, rope, positions, options, attention_keep(memory));
  };
  if (memory == MemoryMode::kRerun) {
    const auto whole = [core, projections](const at::Tensor& input) {
      return core(project(input, projections, kernels::KeepInput::kTensor));
    };
    return kernels::rerun_segment(whole, x, parameters_of(projections), kernels::KeepInput::kTensor);
  }
  const at::Tensor qkv = project(x, projections, kept_input(memory));
  // The segment has packed qkv before the rotation writes into it, and runs again on a copy of its own.
  if (memory == MemoryMode::kInt8) return kernels::rerun_segment(core, qkv, {}, kernels::KeepInput::kInt8);
  return core(qkv);
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
