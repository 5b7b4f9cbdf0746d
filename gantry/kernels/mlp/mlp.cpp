#include "gantry/kernels/mlp/mlp.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "gantry/kernels/activation/activation.h"
#include "gantry/kernels/activation/activation_dispatch.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/mlp/kept_inputs.h"
#include "gantry/kernels/mlp/parameter_gradients.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/segment/segment.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

void run_activation(const at::Tensor& x, const at::Tensor& y, Activation kind) {
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(x.numel(), activation_forward_kernel<Raw>(),
               ActivationForwardArgs<Raw>{
                   .kind = kind, .side = SideFlag::kNone, .x = raw_const<Raw>(x), .y = raw<Raw>(y), .flags = nullptr});
  });
}

/// The input's gradient over dy, the output into y.
void run_exact_backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& y, Activation kind) {
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(
        x.numel(), activation_exact_backward_kernel<Raw>(),
        ActivationExactArgs<Raw>{
            .kind = kind, .x = raw_const<Raw>(x), .dy = raw_const<Raw>(dy), .dx = raw<Raw>(dy), .y = raw<Raw>(y)});
  });
}

struct MlpFunction : torch::autograd::Function<MlpFunction> {
  // The biases come last: an absent one is no edge of the node, and the edges before keep their numbers.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight1,
                            const at::Tensor& weight2, const std::optional<at::Tensor>& given1,
                            const std::optional<at::Tensor>& given2, std::int64_t layout, std::int64_t kind,
                            std::int64_t memory) {
    const auto mode = static_cast<MlpMemory>(memory);
    const at::Tensor bias1 = given1.value_or(at::Tensor()), bias2 = given2.value_or(at::Tensor());
    const at::Tensor x2 = x.reshape({-1, x.size(-1)});
    const at::Tensor inner = linear(x2, weight1, bias1, static_cast<WeightLayout>(layout));
    tensor_list saved = keep_inputs(mode, x2, inner, weight1.requires_grad());
    saved.insert(saved.end(), {weight1, weight2, bias1, bias2});
    const at::Tensor y = mode == MlpMemory::kActivationInput ? at::empty_like(inner) : inner;
    run_activation(inner, y, static_cast<Activation>(kind));
    const at::Tensor out = linear(y, weight2, bias2, static_cast<WeightLayout>(layout));
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["layout"] = layout;
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["memory"] = memory;
    auto shape = x.sizes().vec();
    shape.back() = out.size(1);
    return at::_unsafe_view(out, shape);
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& gradients) {
    return first_order("mlp", gradients, [&](const auto& dy) { return differentiate(ctx, dy[0]); });
  }

  static tensor_list differentiate(AutogradContext* ctx, const at::Tensor& gradient) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &weight1 = saved[4], &weight2 = saved[5], &bias1 = saved[6], &bias2 = saved[7];
    const auto layout = static_cast<WeightLayout>(ctx->saved_data["layout"].toInt());
    const KeptInputs kept(static_cast<MlpMemory>(ctx->saved_data["memory"].toInt()), at::TensorList(saved).slice(0, 4),
                          weight1.scalar_type());
    const at::Tensor dout = gradient.reshape({-1, gradient.size(-1)});
    const int in_axis = layout == WeightLayout::kOutIn ? 1 : 0;
    const std::int64_t rows = dout.size(0), in = weight1.size(in_axis);
    at::Tensor inner = kept.activation_input(rows, weight1.size(1 - in_axis),
                                             [&] { return linear(saved[0], weight1, bias1, layout); });
    const at::Tensor dinner = input_gradient(weight2, dout, layout);
    at::Tensor y = kept.activation_input_is_free() ? inner : at::empty_like(inner);
    run_exact_backward(inner, dinner, y, static_cast<Activation>(ctx->saved_data["kind"].toInt()));
    inner.reset();
    tensor_list result(8);
    const std::size_t edge2 = bias1.defined() ? 4 : 3;
    if (ctx->needs_input_grad(2)) result[2] = weight_gradient(weight2, y, dout, layout);
    if (bias2.defined() && ctx->needs_input_grad(edge2)) result[4] = bias_gradient(bias2, dout);
    y.reset();
    if (ctx->needs_input_grad(1)) result[1] = weight_gradient(weight1, kept.x2(rows, in), dinner, layout);
    if (bias1.defined() && ctx->needs_input_grad(3)) result[3] = bias_gradient(bias1, dinner);
    if (ctx->needs_input_grad(0)) {
      auto shape = gradient.sizes().vec();
      shape.back() = in;
      result[0] = input_gradient(weight1, dinner, layout).view(shape);
    }
    return result;
  }
};

void check_mlp_inputs(const at::Tensor& x, const MlpParameters& p) {
  GANTRY_CHECK(x.dim() >= 1, "mlp: expected an input of at least one axis, got a scalar");
  GANTRY_CHECK(p.weight1.defined() && p.weight2.defined() && p.weight1.dim() == 2 && p.weight2.dim() == 2,
               "mlp: expected two weights of two axes");
  const int in = p.layout == WeightLayout::kOutIn ? 1 : 0;
  GANTRY_CHECK(p.weight1.size(in) == x.size(-1), "mlp: input of {} features does not fit weight1 {}", x.size(-1),
               c10::str(p.weight1.sizes()));
  GANTRY_CHECK(p.weight2.size(in) == p.weight1.size(1 - in), "mlp: weight2 {} does not fit weight1 {}",
               c10::str(p.weight2.sizes()), c10::str(p.weight1.sizes()));
}

at::Tensor mlp_composition(const at::Tensor& x, const MlpParameters& p, Activation kind, MlpMemory memory) {
  const auto body = [p, kind](const at::Tensor& in) {
    return linear(activation_reference(linear(in, p.weight1, p.bias1, p.layout), kind), p.weight2, p.bias2, p.layout);
  };
  if (memory == MlpMemory::kActivationInput) return body(x);
  return rerun_segment(body, x, {p.weight1, p.bias1, p.weight2, p.bias2}, kept_by_segment(memory));
}

}  // namespace

at::Tensor mlp(const at::Tensor& x, const MlpParameters& p, Activation kind, MlpMemory memory) {
  check_mlp_inputs(x, p);
  if (!has_activation_kernel(x)) return mlp_composition(x, p, kind, memory);
  if (tracks_gradients({x, p.weight1, p.bias1, p.weight2, p.bias2})) {
    return MlpFunction::apply(x, p.weight1, p.weight2, optional_of(p.bias1), optional_of(p.bias2),
                              static_cast<std::int64_t>(p.layout), static_cast<std::int64_t>(kind),
                              static_cast<std::int64_t>(memory));
  }
  const at::NoGradGuard no_grad;
  const at::Tensor inner = linear(x, p.weight1, p.bias1, p.layout);
  run_activation(inner, inner, kind);
  return linear(inner, p.weight2, p.bias2, p.layout);
}

}  // namespace gantry::kernels
