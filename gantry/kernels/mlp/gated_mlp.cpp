#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "gantry/kernels/activation/activation.h"
#include "gantry/kernels/activation/activation_dispatch.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/mlp/gated_raw.h"
#include "gantry/kernels/mlp/kept_inputs.h"
#include "gantry/kernels/mlp/mlp.h"
#include "gantry/kernels/mlp/parameter_gradients.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/segment/segment.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// fp64 has no raw gated kernel: it is there for gradient checks.
at::Tensor run_gated_product(const at::Tensor& gate_up, Activation kind) {
  const std::int64_t n = gate_up.size(1) / 2;
  if (gate_up.scalar_type() == at::kDouble) {
    return activation_reference(gate_up.narrow(1, 0, n), kind) * gate_up.narrow(1, n, n);
  }
  at::Tensor z = at::empty({gate_up.size(0), n}, gate_up.options());
  dispatch_activation(gate_up.scalar_type(), [&]<class Raw>() {
    if constexpr (!std::is_same_v<Raw, double>) {
      const auto kernel = GANTRY_ISA_SELECT(gated_forward<Raw>);
      const GatedForwardArgs<Raw> args{.kind = kind, .gate_up = raw_const<Raw>(gate_up), .z = raw<Raw>(z), .n = n};
      at::parallel_for(0, z.size(0), row_grain(2 * n), [&](auto begin, auto end) { kernel(args, begin, end); });
    }
  });
  return z;
}

at::Tensor fp64_backward(const at::Tensor& gate_up, const at::Tensor& dz, const at::Tensor& dgate_up, Activation kind) {
  const std::int64_t n = dz.size(1);
  const at::Tensor gate = gate_up.narrow(1, 0, n).contiguous(), up = gate_up.narrow(1, n, n).clone();
  const at::Tensor dgate = (dz * up).contiguous(), value = at::empty_like(gate);
  for_blocks(gate.numel(), &activation_exact_backward_fp64,
             ActivationExactArgs<double>{.kind = kind,
                                         .x = raw_const<double>(gate),
                                         .dy = raw_const<double>(dgate),
                                         .dx = raw<double>(dgate),
                                         .y = raw<double>(value)});
  dgate_up.narrow(1, 0, n).copy_(dgate);
  dgate_up.narrow(1, n, n).copy_(dz * value);
  return value * up;
}

/// Fills dgate_up, which may be gate_up; z comes back, in dz's place where that can be.
at::Tensor run_gated_product_backward(const at::Tensor& gate_up, const at::Tensor& dz, const at::Tensor& dgate_up,
                                      Activation kind) {
  if (gate_up.scalar_type() == at::kDouble) return fp64_backward(gate_up, dz, dgate_up, kind);
  const std::int64_t n = dz.size(1);
  dispatch_activation(gate_up.scalar_type(), [&]<class Raw>() {
    if constexpr (!std::is_same_v<Raw, double>) {
      const auto kernel = GANTRY_ISA_SELECT(gated_backward<Raw>);
      const GatedBackwardArgs<Raw> args{.kind = kind,
                                        .gate_up = raw_const<Raw>(gate_up),
                                        .dz = raw_const<Raw>(dz),
                                        .dgate_up = raw<Raw>(dgate_up),
                                        .z = raw<Raw>(dz),
                                        .n = n};
      at::parallel_for(0, dz.size(0), row_grain(2 * n), [&](auto begin, auto end) { kernel(args, begin, end); });
    }
  });
  return dz;
}

at::Tensor gate_and_up(const at::Tensor& x2, const GatedMlpParameters& p) {
  return fused_linear(x2, {p.gate, p.up},
                      p.gate_bias.defined() ? std::vector{p.gate_bias, p.up_bias} : std::vector<at::Tensor>{});
}

at::Tensor gated_input_gradient(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dgate_up) {
  if (const at::Tensor joint = view_adjacent({gate, up}); joint.defined()) return matrix_product(dgate_up, joint);
  const std::int64_t n = gate.size(0);
  return matrix_product(dgate_up.narrow(1, 0, n), gate).addmm_(dgate_up.narrow(1, n, n), up);
}

struct GatedMlpFunction : torch::autograd::Function<GatedMlpFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                            const at::Tensor& down, const std::optional<at::Tensor>& given_gate,
                            const std::optional<at::Tensor>& given_up, const std::optional<at::Tensor>& given_down,
                            std::int64_t kind, std::int64_t memory) {
    const GatedMlpParameters p{gate,
                               up,
                               down,
                               given_gate.value_or(at::Tensor()),
                               given_up.value_or(at::Tensor()),
                               given_down.value_or(at::Tensor())};
    const at::Tensor x2 = x.reshape({-1, x.size(-1)});
    at::Tensor gate_up = gate_and_up(x2, p);
    tensor_list saved =
        keep_inputs(static_cast<MlpMemory>(memory), x2, gate_up, gate.requires_grad() || up.requires_grad());
    saved.insert(saved.end(), {gate, up, down, p.gate_bias, p.up_bias, p.down_bias});
    const at::Tensor z = run_gated_product(gate_up, static_cast<Activation>(kind));
    gate_up.reset();
    const at::Tensor out = linear(z, down, p.down_bias);
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["memory"] = memory;
    auto shape = x.sizes().vec();
    shape.back() = out.size(1);
    return at::_unsafe_view(out, shape);
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& gradients) {
    return first_order("gated_mlp", gradients, [&](const auto& dy) { return differentiate(ctx, dy[0]); });
  }

  static tensor_list differentiate(AutogradContext* ctx, const at::Tensor& gradient) {
    const auto saved = ctx->get_saved_variables();
    const GatedMlpParameters p{saved[4], saved[5], saved[6], saved[7], saved[8], saved[9]};
    const KeptInputs kept(static_cast<MlpMemory>(ctx->saved_data["memory"].toInt()), at::TensorList(saved).slice(0, 4),
                          p.gate.scalar_type());
    constexpr auto kLayout = WeightLayout::kOutIn;
    const at::Tensor dout = gradient.reshape({-1, gradient.size(-1)});
    const std::int64_t rows = dout.size(0), n = p.gate.size(0), in = p.gate.size(1);
    at::Tensor gate_up = kept.activation_input(rows, 2 * n, [&] { return gate_and_up(saved[0], p); });
    const at::Tensor dz = input_gradient(p.down, dout, kLayout);
    const at::Tensor dgate_up = kept.activation_input_is_free() ? gate_up : at::empty_like(gate_up);
    at::Tensor z =
        run_gated_product_backward(gate_up, dz, dgate_up, static_cast<Activation>(ctx->saved_data["kind"].toInt()));
    gate_up.reset();
    tensor_list result(9);
    if (ctx->needs_input_grad(3)) result[3] = weight_gradient(p.down, z, dout, kLayout);
    z.reset();
    const at::Tensor dgate = dgate_up.narrow(1, 0, n), dup = dgate_up.narrow(1, n, n);
    if (ctx->needs_input_grad(1) || ctx->needs_input_grad(2)) {
      const at::Tensor x2 = kept.x2(rows, in);
      if (ctx->needs_input_grad(1)) result[1] = weight_gradient(p.gate, x2, dgate, kLayout);
      if (ctx->needs_input_grad(2)) result[2] = weight_gradient(p.up, x2, dup, kLayout);
    }
    const at::Tensor sides[] = {dgate, dup, dout};
    std::size_t edge = 4;  // absent biases are no edges
    for (std::size_t i = 0; i < 3; ++i) {
      const at::Tensor& bias = saved[7 + i];
      if (bias.defined() && ctx->needs_input_grad(edge++)) result[4 + i] = bias_gradient(bias, sides[i]);
    }
    if (ctx->needs_input_grad(0)) {
      auto shape = gradient.sizes().vec();
      shape.back() = in;
      result[0] = gated_input_gradient(p.gate, p.up, dgate_up).view(shape);
    }
    return result;
  }
};

void check_gated_mlp_inputs(const at::Tensor& x, const GatedMlpParameters& p) {
  GANTRY_CHECK(x.dim() >= 1, "gated_mlp: expected an input of at least one axis, got a scalar");
  GANTRY_CHECK(p.gate.defined() && p.up.defined() && p.down.defined() && p.gate.dim() == 2 && p.down.dim() == 2,
               "gated_mlp: expected three weights of two axes");
  GANTRY_CHECK(p.gate.sizes() == p.up.sizes() && p.gate.size(1) == x.size(-1) && p.down.size(1) == p.gate.size(0),
               "gated_mlp: input of {} features, gate {}, up {}, down {} do not fit", x.size(-1),
               c10::str(p.gate.sizes()), c10::str(p.up.sizes()), c10::str(p.down.sizes()));
  GANTRY_CHECK(p.gate_bias.defined() == p.up_bias.defined(),
               "gated_mlp: gate has a bias and up has none, or the other way round; give both or neither");
}

at::Tensor gated_mlp_composition(const at::Tensor& x, const GatedMlpParameters& p, Activation kind, MlpMemory memory) {
  const auto body = [p, kind](const at::Tensor& in) {
    const auto parts = gate_and_up(in, p).chunk(2, -1);
    return linear(activation_reference(parts[0], kind) * parts[1], p.down, p.down_bias);
  };
  if (memory == MlpMemory::kActivationInput) return body(x);
  return rerun_segment(body, x, {p.gate, p.up, p.down, p.gate_bias, p.up_bias, p.down_bias}, kept_by_segment(memory));
}

}  // namespace

at::Tensor gated_mlp(const at::Tensor& x, const GatedMlpParameters& p, Activation kind, MlpMemory memory) {
  check_gated_mlp_inputs(x, p);
  if (!has_activation_kernel(x)) return gated_mlp_composition(x, p, kind, memory);
  if (tracks_gradients({x, p.gate, p.up, p.down, p.gate_bias, p.up_bias, p.down_bias})) {
    return GatedMlpFunction::apply(x, p.gate, p.up, p.down, optional_of(p.gate_bias), optional_of(p.up_bias),
                                   optional_of(p.down_bias), static_cast<std::int64_t>(kind),
                                   static_cast<std::int64_t>(memory));
  }
  const at::NoGradGuard no_grad;
  const at::Tensor gate_up = gate_and_up(x.reshape({-1, x.size(-1)}), p);
  const at::Tensor out = linear(run_gated_product(gate_up, kind), p.down, p.down_bias);
  auto shape = x.sizes().vec();
  shape.back() = out.size(1);
  return out.view(shape);
}

}  // namespace gantry::kernels
