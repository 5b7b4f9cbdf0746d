#include "gantry/layers/embedding.h"

#include <ATen/ATen.h>

#include "gantry/kernels/embedding/embedding.h"

namespace gantry::layers {

EmbeddingImpl::EmbeddingImpl(std::int64_t count, std::int64_t size) {
  weight = register_parameter("weight", at::empty({count, size}));
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) const { return kernels::embedding(ids, weight); }

}  // namespace gantry::layers
