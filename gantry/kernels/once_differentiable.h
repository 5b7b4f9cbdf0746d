#pragma once
// Gradients that cannot be differentiated again say so instead of passing for constants.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

namespace gantry::kernels {

/// For the end of a custom backward: `gradients` as they are; under create_graph they become results of a node that
/// throws, naming `op`, as soon as somebody differentiates them: with respect to the operator's inputs, or to those of
/// the `incoming` gradients that are given.
torch::autograd::variable_list once_differentiable(const char* op, torch::autograd::variable_list gradients,
                                                   const torch::autograd::variable_list& incoming = {});

/// The whole of a custom backward: compute(incoming), which runs without gradient mode.
template <class Compute>
torch::autograd::variable_list first_order(const char* op, const torch::autograd::variable_list& incoming,
                                           Compute&& compute) {
  torch::autograd::variable_list gradients;
  {
    const at::NoGradGuard no_grad;
    gradients = compute(incoming);
  }
  return once_differentiable(op, std::move(gradients), incoming);
}

}  // namespace gantry::kernels
