#include "gantry/kernels/embedding/embedding.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/base/check.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& ids, const at::Tensor& weight) {
    ctx->save_for_backward({ids, weight});
    return at::embedding(weight, ids);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &ids = saved[0], &weight = saved[1];
    const at::Tensor rows = gradients[0].reshape({-1, weight.size(1)});
    auto* sinks = tensor::GradientSinks::active();
    auto* slot = sinks == nullptr ? nullptr : sinks->find(weight);
    if (slot == nullptr)
      return once_differentiable("embedding",
                                 {{}, at::embedding_dense_backward(gradients[0], ids, weight.size(0), -1, false)});
    if (!slot->written) slot->gradient.zero_();
    slot->written = true;
    slot->gradient.index_add_(0, ids.reshape({-1}), rows.to(slot->gradient.scalar_type()));
    return once_differentiable("embedding", {{}, {}});
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& ids, const at::Tensor& weight) {
  GANTRY_CHECK(ids.scalar_type() == at::kLong, "embedding: ids must be int64, got {}",
               c10::toString(ids.scalar_type()));
  GANTRY_CHECK(weight.dim() == 2, "embedding: expected a [vocab, n] table, got {}", c10::str(weight.sizes()));
  if (ids.is_cpu() && ids.numel() > 0) {
    const auto [low, high] = at::aminmax(ids);
    GANTRY_CHECK(low.item<std::int64_t>() >= 0 && high.item<std::int64_t>() < weight.size(0),
                 "embedding: token ids {} to {} do not all fit a table of {} rows", low.item<std::int64_t>(),
                 high.item<std::int64_t>(), weight.size(0));
  }
  if (at::GradMode::is_enabled() && weight.requires_grad()) return EmbeddingFunction::apply(ids, weight);
  return at::embedding(weight, ids);
}

}  // namespace gantry::kernels
