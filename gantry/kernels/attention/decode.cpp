#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>

#include "gantry/kernels/attention/attention_internal.h"
#include "gantry/kernels/attention/decode_raw.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/rope/rope_raw.h"

namespace gantry::kernels::internal {
namespace {

template <class Raw>
struct DecodeStep {
  Raw* qkv;
  std::int64_t batch, tokens, row;  ///< row: elements of one token's packed projections
  const AttentionOptions& o;

  void rotate(const RopeTables& rope, const at::Tensor& positions) const {
    const auto* index = raw_const<std::int64_t>(positions);
    for (std::int64_t i = 0; i < batch * tokens; ++i) {
      GANTRY_CHECK(index[i] >= 0 && index[i] < rope.cosine.size(0),
                   "rope: position {} is outside the {} positions of the table", index[i], rope.cosine.size(0));
    }
    GANTRY_ISA_SELECT(rope<Raw>)
    ({.x = qkv,
      .row_stride = row,
      .heads = o.heads + o.kv_heads,
      .head_dim = o.head_dim,
      .positions = index,
      .cosine = raw_const<float>(rope.cosine),
      .sine = raw_const<float>(rope.sine),
      .inverse = false},
     0, batch * tokens);
  }

  void append(const KvSlices& cache, std::int64_t length) const {
    const std::int64_t width = o.kv_heads * o.head_dim, capacity = cache.keys.size(1);
    const auto bytes = static_cast<std::size_t>(width) * sizeof(Raw);
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        const Raw* keys = qkv + (b * tokens + t) * row + o.heads * o.head_dim;
        const std::int64_t place = (b * capacity + length + t) * width;
        std::memcpy(raw<Raw>(cache.keys) + place, keys, bytes);
        std::memcpy(raw<Raw>(cache.values) + place, keys + width, bytes);
      }
    }
  }

  void attend(const KvSlices& cache, std::int64_t total, const at::Tensor& starts, const at::Tensor& out) const {
    const at::Tensor scratch = at::empty({at::get_num_threads() * total}, out.options().dtype(at::kFloat));
    const auto kernel = GANTRY_ISA_SELECT(decode_attention<Raw>);
    const std::int64_t grain = std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(1, total * o.head_dim));
    at::parallel_for(0, batch * tokens * o.heads, grain, [&](std::int64_t begin, std::int64_t end) {
      kernel({.q = qkv,
              .q_stride = row,
              .k = raw_const<Raw>(cache.keys),
              .v = raw_const<Raw>(cache.values),
              .out = raw<Raw>(out),
              .tokens = tokens,
              .heads = o.heads,
              .kv_heads = o.kv_heads,
              .head_dim = o.head_dim,
              .capacity = cache.keys.size(1),
              .length = total,
              .starts = raw_const<std::int64_t>(starts),
              .scale = static_cast<float>(effective_scale(o)),
              .scratch = raw<float>(scratch) + at::get_thread_num() * total},
             begin, end);
    });
  }
};

}  // namespace

at::Tensor decode_step(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                       const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                       const AttentionOptions& options) {
  at::Tensor out = at::empty({qkv.size(0), qkv.size(1), options.heads * options.head_dim}, qkv.options());
  dispatch_raw(qkv.scalar_type(), [&]<class Raw>() {
    const DecodeStep<Raw> step{raw<Raw>(qkv), qkv.size(0), qkv.size(1), qkv.size(2), options};
    if (rope.cosine.defined()) step.rotate(rope, positions.contiguous());
    step.append(cache, length);
    step.attend(cache, length + qkv.size(1), starts, out);
  });
  return out;
}

}  // namespace gantry::kernels::internal
