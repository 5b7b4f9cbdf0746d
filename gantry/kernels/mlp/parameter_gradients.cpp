#include "gantry/kernels/mlp/parameter_gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/graph_task.h>

namespace gantry::kernels {

at::Tensor weight_gradient(const at::Tensor& weight, const at::Tensor& x2, const at::Tensor& dy2, WeightLayout layout) {
  const bool out_in = layout == WeightLayout::kOutIn;
  const at::Tensor a = out_in ? dy2.t() : x2.t(), b = out_in ? x2 : dy2;
  auto* sinks = tensor::GradientSinks::active();
  auto* slot = sinks == nullptr ? nullptr : sinks->find(weight);
  if (slot == nullptr) return matrix_product(a, b);
  add_matrix_product(*slot, a, b);
  return {};
}

at::Tensor bias_gradient(const at::Tensor& bias, const at::Tensor& dy2) {
  const at::Tensor gradient = dy2.sum(0, false, dy2.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  auto* sinks = tensor::GradientSinks::active();
  auto* slot = sinks == nullptr ? nullptr : sinks->find(bias);
  if (slot == nullptr) return gradient.to(bias.scalar_type());
  tensor::accumulate(*slot, gradient);
  return {};
}

bool kept_buffers_are_free() { return !torch::autograd::get_current_graph_task_keep_graph(); }

}  // namespace gantry::kernels
