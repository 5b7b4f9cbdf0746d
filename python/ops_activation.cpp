// In-place activations and dropout.
#include <torch/library.h>

#include <tuple>

#include "gantry/kernels/activation/activation_dispatch.h"
#include "gantry/kernels/dropout/dropout.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;

void check_type(const char* op, const at::Tensor& x) {
  GANTRY_CHECK(has_activation_kernel(x), "{}: input is {}, expected float32, bfloat16, float16 or float64", op,
               c10::toString(x.scalar_type()));
}

// As `like`, so that both can be read in storage order.
at::Tensor laid_out_as(const at::Tensor& x, const at::Tensor& like) {
  return x.strides() == like.strides() ? x : at::empty_like(like).copy_(x);
}

std::tuple<at::Tensor, at::Tensor> activation_forward_op(const at::Tensor& x, std::string_view kind) {
  const BelowAutograd below;
  check_type("activation", x);
  const at::Tensor y = at::empty_like(x), input = laid_out_as(x, y);
  const at::Tensor side = at::empty({(x.numel() + 7) / 8}, x.options().dtype(at::kByte));
  const Activation function = activation_of(kind);
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(x.numel(), activation_forward_kernel<Raw>(),
               ActivationForwardArgs<Raw>{.kind = function,
                                          .side = SideFlag::kBit,
                                          .x = raw_const<Raw>(input),
                                          .y = raw<Raw>(y),
                                          .flags = raw<std::uint8_t>(side)});
  });
  return {y, side};
}

at::Tensor activation_backward_op(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& side,
                                  std::string_view kind) {
  const BelowAutograd below;
  check_type("activation_backward", y);
  GANTRY_CHECK(dy.sizes() == y.sizes() && dy.scalar_type() == y.scalar_type() && side.scalar_type() == at::kByte &&
                   side.numel() == (y.numel() + 7) / 8,
               "activation_backward: gradient {} {} and {} bytes of sides do not fit output {} {}",
               c10::str(dy.sizes()), c10::toString(dy.scalar_type()), side.numel(), c10::str(y.sizes()),
               c10::toString(y.scalar_type()));
  const at::Tensor dx = at::empty_like(y);
  GANTRY_CHECK(dx.strides() == y.strides(), "activation_backward: output has gaps between its elements");
  const at::Tensor gradient = laid_out_as(dy, y), flags = side.contiguous();
  const Activation function = activation_of(kind);
  dispatch_activation(y.scalar_type(), [&]<class Raw>() {
    for_blocks(y.numel(), activation_backward_kernel<Raw>(),
               ActivationBackwardArgs<Raw>{.kind = function,
                                           .quality = FitQuality::kAccurate,
                                           .side = SideFlag::kBit,
                                           .y = raw_const<Raw>(y),
                                           .dy = raw_const<Raw>(gradient),
                                           .dx = raw<Raw>(dx),
                                           .flags = raw_const<std::uint8_t>(flags)});
  });
  return dx;
}

at::Tensor dropout_op(const at::Tensor& x, const at::Tensor& seed, double p) {
  const BelowAutograd below;
  const DropoutRule rule = rule_of(seed, p);
  const at::Tensor dense = x.contiguous();
  const at::Tensor y = dropout(dense, rule);
  return y.is_same(dense) ? at::empty_like(dense).copy_(dense) : y;
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("activation", gantry::python::activation_forward_op);
  library.impl("activation_backward", gantry::python::activation_backward_op);
  library.impl("dropout", gantry::python::dropout_op);
}
