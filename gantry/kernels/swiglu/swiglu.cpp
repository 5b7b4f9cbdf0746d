#include "gantry/kernels/swiglu/swiglu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/kernels/common.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/swiglu/swiglu_raw.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor run_swiglu(const at::Tensor& gate_up) {
  auto shape = gate_up.sizes().vec();
  shape.back() /= 2;
  const std::int64_t n = shape.back();
  at::Tensor z = at::empty(shape, gate_up.options());
  dispatch_raw(gate_up.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(swiglu_forward<Raw>);
    at::parallel_for(0, row_count(gate_up), row_grain(2 * n), [&](std::int64_t begin, std::int64_t end) {
      kernel({.gate_up = raw_const<Raw>(gate_up), .z = raw<Raw>(z), .n = n}, begin, end);
    });
  });
  return z;
}

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    const at::Tensor input = gate_up.contiguous();
    ctx->save_for_backward({input});
    return run_swiglu(input);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0];
    const at::Tensor dz = gradients[0].contiguous();
    const std::int64_t n = dz.size(-1);
    at::Tensor dgate_up = at::empty_like(gate_up);
    dispatch_raw(gate_up.scalar_type(), [&]<class Raw>() {
      const auto kernel = GANTRY_ISA_SELECT(swiglu_backward<Raw>);
      at::parallel_for(0, row_count(gate_up), row_grain(2 * n), [&](std::int64_t begin, std::int64_t end) {
        kernel({.dz = raw_const<Raw>(dz), .gate_up = raw_const<Raw>(gate_up), .dgate_up = raw<Raw>(dgate_up), .n = n},
               begin, end);
      });
    });
    return once_differentiable("swiglu", {dgate_up});
  }
};

}  // namespace

at::Tensor swiglu_reference(const at::Tensor& gate_up) {
  const auto parts = gate_up.chunk(2, -1);
  return at::silu(parts[0]) * parts[1];
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  GANTRY_CHECK(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0, "swiglu: the last axis of {} is not even",
               c10::str(gate_up.sizes()));
  if (!has_raw_kernel(gate_up)) return swiglu_reference(gate_up);
  if (at::GradMode::is_enabled() && gate_up.requires_grad()) return SwigluFunction::apply(gate_up);
  return run_swiglu(gate_up.contiguous());
}

}  // namespace gantry::kernels
