#include "gantry/kernels/once_differentiable.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

#include <string>

namespace gantry::kernels {

torch::autograd::variable_list once_differentiable(const char* op, torch::autograd::variable_list gradients) {
  if (!at::GradMode::is_enabled()) return gradients;
  for (auto& gradient : gradients) {
    if (gradient.defined()) gradient = gradient.detach().requires_grad_();  // else the node below would be left out
  }
  torch::autograd::DelayedError refuse(
      std::string(op) + ": second derivatives are not available; use the memory mode 'store' where they are needed",
      static_cast<std::int64_t>(gradients.size()));
  return refuse.apply(std::move(gradients));
}

}  // namespace gantry::kernels
