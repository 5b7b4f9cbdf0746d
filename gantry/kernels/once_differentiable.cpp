#include "gantry/kernels/once_differentiable.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <string>

namespace gantry::kernels {

torch::autograd::variable_list once_differentiable(const char* op, torch::autograd::variable_list gradients,
                                                   const torch::autograd::variable_list& incoming) {
  if (!at::GradMode::is_enabled()) return gradients;
  const std::size_t count = gradients.size();
  for (auto& gradient : gradients) {
    if (gradient.defined()) gradient = gradient.detach().requires_grad_();  // else the node below would be left out
  }
  // The refusing node must lie on every path to what the gradients depend on: a search for one input's second
  // derivative runs only the nodes on its paths.
  gradients.insert(gradients.end(), incoming.begin(), incoming.end());
  if (const auto node = torch::autograd::get_current_node()) {
    for (const auto& edge : node->next_edges()) {
      if (!edge.is_valid()) continue;
      gradients.push_back(at::empty({0}));
      torch::autograd::impl::set_gradient_edge(gradients.back(), edge);
    }
  }
  torch::autograd::DelayedError refuse(
      std::string(op) + ": second derivatives are not available; use the memory mode 'store' where they are needed",
      static_cast<std::int64_t>(gradients.size()));
  gradients = refuse.apply(std::move(gradients));
  gradients.resize(count);
  return gradients;
}

}  // namespace gantry::kernels
