#pragma once
// Gradients that cannot be differentiated again say so instead of passing for constants.
#include <torch/csrc/autograd/variable.h>

namespace gantry::kernels {

/// For the end of a custom backward: `gradients` as they are; under create_graph they become results of a node that
/// throws, naming `op`, as soon as somebody differentiates them.
torch::autograd::variable_list once_differentiable(const char* op, torch::autograd::variable_list gradients);

}  // namespace gantry::kernels
