#pragma once
// A piece of a network as one autograd node that keeps only its input and runs again in the backward pass (Training
// Deep Nets with Sublinear Memory Cost, Chen et al. 2016, section 3).
#include <ATen/core/Tensor.h>

#include <functional>

#include "gantry/kernels/stash/stash.h"

namespace gantry::kernels {

/// body(x), run without a graph; the backward pass runs body again on the kept x, with a graph, and differentiates
/// that.
///
/// `parameters`: every other tensor that body reads and that may want a gradient, leaf or not; undefined ones and
/// repeats are ignored. Their gradients leave through edges of this node, or go to the slots of an active
/// tensor::GradientSinks where body's operators write there. A leaf that wants a gradient and is not listed is an error
/// in the backward pass, not a missing gradient.
///
/// Kept: x as it is, no copy (kTensor), or stashed_bytes(x.numel()) (kInt8: the forward pass sees the exact x, the
/// gradients see the unpacked one). Neither kept nor run again where gradients are off or nothing wants one: then
/// body(x) is called as it is.
///
/// Body must be a function of x and unchanging state: it runs once more for every backward pass, later, perhaps with
/// random numbers drawn in between. Dropout inside takes a DropoutRule drawn outside and captured by value. It must not
/// write into x, except with kInt8, where each run has an x of its own (the first the caller's). The caller's autocast
/// state is restored for the second run; other thread-local state is not. Body is kept alive by the graph; it must not
/// capture the result.
///
/// Differentiable once. Segments nest. InputError for kInt8 and an x of no floating-point type.
at::Tensor rerun_segment(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& x,
                         at::TensorList parameters, KeepInput keep = KeepInput::kTensor);

}  // namespace gantry::kernels
