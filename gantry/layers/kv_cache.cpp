#include "gantry/layers/kv_cache.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"

namespace gantry::layers {

KvCache::KvCache(const KvCacheShape& shape, const at::TensorOptions& options) : capacity_(shape.capacity) {
  GANTRY_CHECK(shape.batch > 0 && shape.capacity > 0, "KV cache: batch {} and capacity {} must be positive",
               shape.batch, shape.capacity);
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    const auto make = [&] { return at::empty({shape.batch, shape.capacity, shape.kv_heads, shape.head_dim}, options); };
    layers_.push_back({make(), make()});
  }
}

void KvCache::advance(std::int64_t tokens) {
  GANTRY_CHECK(length_ + tokens <= capacity_, "KV cache: {} + {} tokens do not fit {}", length_, tokens, capacity_);
  length_ += tokens;
}

void KvCache::truncate(std::int64_t length) {
  GANTRY_CHECK(length >= 0 && length <= length_, "KV cache: cannot cut {} tokens back to {}", length_, length);
  length_ = length;
}

}  // namespace gantry::layers
