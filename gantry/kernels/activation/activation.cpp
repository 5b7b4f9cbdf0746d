#include "gantry/kernels/activation/activation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/kernels/activation/activation_dispatch.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/once_differentiable.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor empty_flags(SideFlag side, std::int64_t n) {
  if (side == SideFlag::kLowBit || side == SideFlag::kNone) return {};
  return at::empty({side == SideFlag::kByte ? n : (n + 7) / 8}, at::kByte);
}

// x and y lie alike in memory, so that flags and values go in storage order.
at::Tensor run_activation(const at::Tensor& x, const at::Tensor& y, Activation kind, SideFlag side) {
  at::Tensor flags = empty_flags(side, x.numel());
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(
        x.numel(), activation_forward_kernel<Raw>(),
        ActivationForwardArgs<Raw>{
            .kind = kind, .side = side, .x = raw_const<Raw>(x), .y = raw<Raw>(y), .flags = raw<std::uint8_t>(flags)});
  });
  return flags;
}

at::Tensor run_activation_backward(const at::Tensor& y, const at::Tensor& flags, const at::Tensor& gradient,
                                   Activation kind, FitQuality quality, SideFlag side) {
  at::Tensor dy = gradient;
  if (dy.strides() != y.strides()) dy = at::empty_like(y).copy_(gradient);
  at::Tensor dx = at::empty_like(y);
  dispatch_activation(y.scalar_type(), [&]<class Raw>() {
    for_blocks(y.numel(), activation_backward_kernel<Raw>(),
               ActivationBackwardArgs<Raw>{.kind = kind,
                                           .quality = quality,
                                           .side = side,
                                           .y = raw_const<Raw>(y),
                                           .dy = raw_const<Raw>(dy),
                                           .dx = raw<Raw>(dx),
                                           .flags = raw_const<std::uint8_t>(flags)});
  });
  return dx;
}

struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, std::int64_t kind, std::int64_t quality,
                            std::int64_t side, bool overwrite) {
    at::Tensor y;
    at::Tensor input = x;
    if (overwrite) {
      y = x;
      ctx->mark_dirty({x});
    } else if (x.is_non_overlapping_and_dense()) {
      y = at::empty_like(x);
    } else {
      input = y = x.contiguous();
    }
    const at::Tensor flags = run_activation(input, y, static_cast<Activation>(kind), static_cast<SideFlag>(side));
    // The kernel writes behind autograd's back: whoever has kept x must notice.
    if (overwrite) y.unsafeGetTensorImpl()->bump_version();
    ctx->save_for_backward({y, flags});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["quality"] = quality;
    ctx->saved_data["side"] = side;
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto option = [&](const char* name) { return ctx->saved_data[name].toInt(); };
    at::Tensor dx;
    {
      const at::NoGradGuard no_grad;
      dx = run_activation_backward(saved[0], saved[1], gradients[0], static_cast<Activation>(option("kind")),
                                   static_cast<FitQuality>(option("quality")), static_cast<SideFlag>(option("side")));
    }
    return once_differentiable("activation", {dx, {}, {}, {}, {}});
  }
};

}  // namespace

at::Tensor activation_reference(const at::Tensor& x, Activation kind) {
  switch (kind) {
    case Activation::kGeluErf: return at::gelu(x);
    case Activation::kGeluTanh: return at::gelu(x, "tanh");
    case Activation::kSilu: return at::silu(x);
    case Activation::kQuickGelu: return x * at::sigmoid(1.702 * x);
  }
  GANTRY_UNREACHABLE();
}

std::string overwrite_refusal(const at::Tensor& x) {
  if (!has_activation_kernel(x)) return "no kernel for this device and type";
  if (!x.is_non_overlapping_and_dense()) return "input elements overlap or have gaps between them";
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return "";
  if (x.is_leaf()) return "input is a leaf that wants a gradient";
  if (x.is_view()) return "input is a view of another tensor";
  return "";
}

at::Tensor activation(const at::Tensor& x, const ActivationOptions& options) {
  if (!has_activation_kernel(x)) return activation_reference(x, options.kind);
  GANTRY_CHECK(options.side != SideFlag::kNone,
               "activation: side flag kNone keeps no side; use kByte, kBit or kLowBit");
  const bool overwrite = options.overwrite && overwrite_refusal(x).empty();
  if (at::GradMode::is_enabled() && x.requires_grad()) {
    return ActivationFunction::apply(x, static_cast<std::int64_t>(options.kind),
                                     static_cast<std::int64_t>(options.quality),
                                     static_cast<std::int64_t>(options.side), overwrite);
  }
  const at::Tensor input = x.is_non_overlapping_and_dense() ? x : x.contiguous();
  const at::Tensor y = overwrite ? x : at::empty_like(input);
  run_activation(input, y, options.kind, SideFlag::kNone);
  if (overwrite) y.unsafeGetTensorImpl()->bump_version();
  return y;
}

}  // namespace gantry::kernels
