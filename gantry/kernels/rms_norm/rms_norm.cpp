#include "gantry/kernels/rms_norm/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <initializer_list>

#include "gantry/kernels/common.h"
#include "gantry/kernels/norm_gradients.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/rms_norm/rms_norm_raw.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct RmsNormForward {
  at::Tensor sum, y, rstd;
};

// `keep_rstd` is for a backward pass.
RmsNormForward run_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps,
                            bool keep_rstd) {
  RmsNormForward result;
  result.y = at::empty_like(x);
  if (keep_rstd) result.rstd = at::empty({row_count(x)}, x.options().dtype(at::kFloat));
  if (residual.defined()) result.sum = at::empty_like(x);
  const at::Tensor dense_weight = weight.contiguous();
  const std::int64_t n = x.size(-1);
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const RmsNormForwardArgs<Raw> args{.x = raw_const<Raw>(x),
                                       .residual = raw_const<Raw>(residual),
                                       .sum = raw<Raw>(result.sum),
                                       .weight = raw_const<Raw>(dense_weight),
                                       .y = raw<Raw>(result.y),
                                       .rstd = raw<float>(result.rstd),
                                       .n = n,
                                       .eps = static_cast<float>(eps)};
    const auto kernel = GANTRY_ISA_SELECT(rms_norm_forward<Raw>);
    at::parallel_for(0, row_count(x), row_grain(n), [&](std::int64_t b, std::int64_t e) { kernel(args, b, e); });
  });
  return result;
}

// Gradient of the norm's input and of its weight; dsum may be undefined.
std::pair<at::Tensor, at::Tensor> run_rms_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                                                        const at::Tensor& rstd, const at::Tensor& weight,
                                                        const at::Tensor& dsum) {
  const std::int64_t n = x.size(-1), rows = row_count(x), parts = row_parts(rows);
  at::Tensor dx = at::empty_like(x);
  const at::Tensor partial = at::zeros({parts, n}, x.options().dtype(at::kFloat));
  const at::Tensor dense_weight = weight.contiguous();
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(rms_norm_backward<Raw>);
    for_row_parts(rows, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      kernel({.dy = raw_const<Raw>(dy),
              .x = raw_const<Raw>(x),
              .rstd = raw_const<float>(rstd),
              .weight = raw_const<Raw>(dense_weight),
              .dsum = raw_const<Raw>(dsum),
              .dx = raw<Raw>(dx),
              .dweight = raw<float>(partial) + part * n,
              .n = n},
             begin, end);
    });
  });
  return {dx, partial.sum(0)};
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps) {
    const at::Tensor input = x.contiguous();
    const RmsNormForward result = run_rms_norm(input, {}, weight, eps, true);
    ctx->save_for_backward({input, result.rstd, weight});
    return result.y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    auto [dx, dweight] = run_rms_norm_backward(gradients[0].contiguous(), saved[0], saved[1], saved[2], {});
    return once_differentiable("rms_norm",
                               {dx, ctx->needs_input_grad(1) ? deliver_gradient(saved[2], dweight) : at::Tensor(), {}});
  }
};

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static tensor_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& residual,
                             const at::Tensor& weight, double eps) {
    const RmsNormForward result = run_rms_norm(x.contiguous(), residual.contiguous(), weight, eps, true);
    ctx->save_for_backward({result.sum, result.rstd, weight});
    ctx->set_materialize_grads(false);
    return {result.sum, result.y};
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    if (!gradients[1].defined()) return once_differentiable("rms_norm", {gradients[0], gradients[0], {}, {}});
    const at::Tensor dsum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    auto [dx, dweight] = run_rms_norm_backward(gradients[1].contiguous(), saved[0], saved[1], saved[2], dsum);
    return once_differentiable(
        "rms_norm", {dx, dx, ctx->needs_input_grad(2) ? deliver_gradient(saved[2], dweight) : at::Tensor(), {}});
  }
};

void check_rms_norm_inputs(const at::Tensor& x, const at::Tensor& weight) {
  GANTRY_CHECK(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1),
               "rms_norm: weight {} does not fit input {}", c10::str(weight.sizes()), c10::str(x.sizes()));
  GANTRY_CHECK(x.scalar_type() == weight.scalar_type(), "rms_norm: input is {}, weight is {}",
               c10::toString(x.scalar_type()), c10::toString(weight.scalar_type()));
}

}  // namespace

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor value = x.to(wide);
  const at::Tensor rstd = value.square().mean(-1, true).add(eps).rsqrt();
  return (value * rstd * weight.to(wide)).to(x.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm_inputs(x, weight);
  if (!has_raw_kernel(x)) return rms_norm_reference(x, weight, eps);
  if (tracks_gradients({x, weight})) return RmsNormFunction::apply(x, weight, eps);
  return run_rms_norm(x.contiguous(), {}, weight, eps, false).y;
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                               const at::Tensor& weight, double eps) {
  check_rms_norm_inputs(x, weight);
  GANTRY_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
               "add_rms_norm: input {} {} and residual {} {} differ", c10::toString(x.scalar_type()),
               c10::str(x.sizes()), c10::toString(residual.scalar_type()), c10::str(residual.sizes()));
  if (!has_raw_kernel(x)) {
    const at::Tensor sum = x + residual;
    return {sum, rms_norm_reference(sum, weight, eps)};
  }
  if (tracks_gradients({x, residual, weight})) {
    auto result = AddRmsNormFunction::apply(x, residual, weight, eps);
    return {result[0], result[1]};
  }
  RmsNormForward result = run_rms_norm(x.contiguous(), residual.contiguous(), weight, eps, false);
  return {result.sum, result.y};
}

}  // namespace gantry::kernels
