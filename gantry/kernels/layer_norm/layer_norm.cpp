#include "gantry/kernels/layer_norm/layer_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <initializer_list>

#include "gantry/kernels/common.h"
#include "gantry/kernels/layer_norm/layer_norm_raw.h"
#include "gantry/kernels/norm_gradients.h"
#include "gantry/kernels/once_differentiable.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

struct LayerNormForward {
  at::Tensor sum, y, mean, rstd;
};

LayerNormForward run_layer_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                                const at::Tensor& bias, double eps) {
  LayerNormForward result;
  result.y = at::empty_like(x);
  result.mean = at::empty({row_count(x)}, x.options().dtype(at::kFloat));
  result.rstd = at::empty_like(result.mean);
  if (residual.defined()) result.sum = at::empty_like(x);
  const at::Tensor dense_weight = weight.contiguous(), dense_bias = bias.contiguous();
  const std::int64_t n = x.size(-1);
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const LayerNormForwardArgs<Raw> args{.x = raw_const<Raw>(x),
                                         .residual = raw_const<Raw>(residual),
                                         .sum = raw<Raw>(result.sum),
                                         .weight = raw_const<Raw>(dense_weight),
                                         .bias = raw_const<Raw>(dense_bias),
                                         .y = raw<Raw>(result.y),
                                         .mean = raw<float>(result.mean),
                                         .rstd = raw<float>(result.rstd),
                                         .n = n,
                                         .eps = static_cast<float>(eps)};
    const auto kernel = GANTRY_ISA_SELECT(layer_norm_forward<Raw>);
    at::parallel_for(0, row_count(x), row_grain(n), [&](std::int64_t b, std::int64_t e) { kernel(args, b, e); });
  });
  return result;
}

struct LayerNormBackward {
  at::Tensor dx, dweight, dbias;
};

LayerNormBackward run_layer_norm_backward(const at::Tensor& dy, const tensor_list& saved, const at::Tensor& dsum) {
  const at::Tensor &x = saved[0], &mean = saved[1], &rstd = saved[2], weight = saved[3].contiguous();
  const std::int64_t n = x.size(-1), rows = row_count(x), parts = row_parts(rows);
  at::Tensor dx = at::empty_like(x);
  const at::Tensor partial = at::zeros({2, parts, n}, x.options().dtype(at::kFloat));
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(layer_norm_backward<Raw>);
    for_row_parts(rows, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      kernel({.dy = raw_const<Raw>(dy),
              .x = raw_const<Raw>(x),
              .mean = raw_const<float>(mean),
              .rstd = raw_const<float>(rstd),
              .weight = raw_const<Raw>(weight),
              .dsum = raw_const<Raw>(dsum),
              .dx = raw<Raw>(dx),
              .dweight = raw<float>(partial) + part * n,
              .dbias = raw<float>(partial) + (parts + part) * n,
              .n = n},
             begin, end);
    });
  });
  return {dx, partial[0].sum(0), partial[1].sum(0)};
}

at::Tensor deliver_if(bool needed, const at::Tensor& parameter, const at::Tensor& gradient) {
  return needed ? deliver_gradient(parameter, gradient) : at::Tensor();
}

struct LayerNormFunction : torch::autograd::Function<LayerNormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            double eps) {
    const at::Tensor input = x.contiguous();
    const LayerNormForward result = run_layer_norm(input, {}, weight, bias, eps);
    ctx->save_for_backward({input, result.mean, result.rstd, weight, bias});
    return result.y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const LayerNormBackward result = run_layer_norm_backward(gradients[0].contiguous(), saved, {});
    return once_differentiable("layer_norm", {result.dx,
                                              deliver_if(ctx->needs_input_grad(1), saved[3], result.dweight),
                                              deliver_if(ctx->needs_input_grad(2), saved[4], result.dbias),
                                              {}});
  }
};

struct AddLayerNormFunction : torch::autograd::Function<AddLayerNormFunction> {
  static tensor_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& residual,
                             const at::Tensor& weight, const at::Tensor& bias, double eps) {
    const LayerNormForward result = run_layer_norm(x.contiguous(), residual.contiguous(), weight, bias, eps);
    ctx->save_for_backward({result.sum, result.mean, result.rstd, weight, bias});
    ctx->set_materialize_grads(false);
    return {result.sum, result.y};
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    if (!gradients[1].defined()) return once_differentiable("layer_norm", {gradients[0], gradients[0], {}, {}, {}});
    const at::Tensor dsum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const LayerNormBackward result = run_layer_norm_backward(gradients[1].contiguous(), saved, dsum);
    return once_differentiable("layer_norm", {result.dx,
                                              result.dx,
                                              deliver_if(ctx->needs_input_grad(2), saved[3], result.dweight),
                                              deliver_if(ctx->needs_input_grad(3), saved[4], result.dbias),
                                              {}});
  }
};

void check_layer_norm_inputs(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  GANTRY_CHECK(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1) && bias.sizes() == weight.sizes(),
               "layer_norm: weight {} and bias {} do not fit input {}", c10::str(weight.sizes()),
               c10::str(bias.sizes()), c10::str(x.sizes()));
  GANTRY_CHECK(x.scalar_type() == weight.scalar_type() && x.scalar_type() == bias.scalar_type(),
               "layer_norm: input is {}, weight is {}, bias is {}", c10::toString(x.scalar_type()),
               c10::toString(weight.scalar_type()), c10::toString(bias.scalar_type()));
}

}  // namespace

at::Tensor layer_norm_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor value = x.to(wide);
  const at::Tensor centred = value - value.mean(-1, true);
  const at::Tensor rstd = centred.square().mean(-1, true).add(eps).rsqrt();
  return (centred * rstd * weight.to(wide) + bias.to(wide)).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  check_layer_norm_inputs(x, weight, bias);
  if (!has_raw_kernel(x)) return layer_norm_reference(x, weight, bias, eps);
  if (tracks_gradients({x, weight, bias})) return LayerNormFunction::apply(x, weight, bias, eps);
  return run_layer_norm(x.contiguous(), {}, weight, bias, eps).y;
}

std::pair<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                 const at::Tensor& weight, const at::Tensor& bias, double eps) {
  check_layer_norm_inputs(x, weight, bias);
  GANTRY_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
               "add_layer_norm: input {} {} and residual {} {} differ", c10::toString(x.scalar_type()),
               c10::str(x.sizes()), c10::toString(residual.scalar_type()), c10::str(residual.sizes()));
  if (!has_raw_kernel(x)) {
    const at::Tensor sum = x + residual;
    return {sum, layer_norm_reference(sum, weight, bias, eps)};
  }
  if (tracks_gradients({x, residual, weight, bias})) {
    auto result = AddLayerNormFunction::apply(x, residual, weight, bias, eps);
    return {result[0], result[1]};
  }
  LayerNormForward result = run_layer_norm(x.contiguous(), residual.contiguous(), weight, bias, eps);
  return {result.sum, result.y};
}

}  // namespace gantry::kernels
