#pragma once
// Contiguous key/value cache of a batch of sequences that grow together.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "gantry/kernels/attention/attention.h"

namespace gantry::layers {

struct KvCacheShape {
  std::int64_t layers;
  std::int64_t batch;
  std::int64_t capacity;  ///< tokens per sequence
  std::int64_t kv_heads;
  std::int64_t head_dim;
};

class KvCache {
 public:
  KvCache(const KvCacheShape& shape, const at::TensorOptions& options);

  /// [batch, capacity, kv_heads, head_dim] each.
  const kernels::KvSlices& layer(std::size_t index) const { return layers_.at(index); }
  /// Tokens held by every sequence.
  std::int64_t length() const { return length_; }
  std::int64_t capacity() const { return capacity_; }
  /// Called by a model once a forward pass has appended `tokens` in every layer.
  void advance(std::int64_t tokens);
  /// Forgets everything behind `length`.
  void truncate(std::int64_t length);
  /// Left padding: first row of each sequence that counts, int64 [batch]; undefined: 0.
  at::Tensor starts;

 private:
  std::vector<kernels::KvSlices> layers_;
  std::int64_t capacity_;
  std::int64_t length_ = 0;
};

}  // namespace gantry::layers
