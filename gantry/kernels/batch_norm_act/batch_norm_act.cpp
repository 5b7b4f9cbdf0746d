#include "gantry/kernels/batch_norm_act/batch_norm_act.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>

#include "gantry/base/check.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/inplace_norm/inplace_norm_internal.h"
#include "gantry/kernels/once_differentiable.h"

namespace gantry::kernels {
namespace {

using internal::NormParameters;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;
using OptionalTensor = std::optional<at::Tensor>;

// A row of channels against [batch, channels, ...].
at::Tensor by_channel(const at::Tensor& values, const at::Tensor& x) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(x.dim()), 1);
  sizes[1] = values.size(0);
  return values.reshape(sizes);
}

struct BatchNormForward {
  at::Tensor z, mean, rstd;
};

BatchNormForward run_batch_norm(const at::Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias,
                                const OptionalTensor& running_mean, const OptionalTensor& running_var,
                                const BatchNormActOptions& options) {
  auto [z, mean, rstd] = at::native_batch_norm(x, weight, bias, running_mean, running_var, options.training,
                                               options.momentum, options.eps);
  if (!options.training) {
    const auto wide = internal::wide_type(x);
    mean = running_mean->to(wide);
    rstd = running_var->to(wide).add(options.eps).rsqrt();
  }
  if (options.negative_slope != 1) at::leaky_relu_(z, options.negative_slope);
  return {z, mean, rstd};
}

at::Tensor normal_of(const at::Tensor& x, const BatchNormForward& forward) {
  const auto wide = internal::wide_type(x);
  return ((x.to(wide) - by_channel(forward.mean, x)) * by_channel(forward.rstd, x)).to(x.scalar_type());
}

// The normalised input in the wide type.
at::Tensor recovered(const at::Tensor& z, const at::Tensor& side, const NormParameters& parameters, double slope) {
  at::Tensor y = z.to(internal::wide_type(z));
  if (slope != 1) y = at::where(y < 0, y / slope, y);
  const at::Tensor inverse = internal::inverse_weight(parameters);
  at::Tensor normal = (y - by_channel(parameters.bias, z)) * by_channel(inverse, z);
  if (side.defined()) normal.index_copy_(1, parameters.columns, side.to(normal.scalar_type()));
  return normal;
}

struct BatchNormActFunction : torch::autograd::Function<BatchNormActFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const OptionalTensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& running_mean,
                            const OptionalTensor& running_var, const BatchNormActOptions& options) {
    const at::Tensor w = weight.value_or(at::Tensor()), b = bias.value_or(at::Tensor());
    const BatchNormForward result = run_batch_norm(x, weight, bias, running_mean, running_var, options);
    const NormParameters parameters = internal::norm_parameters(x, x.size(1), w, b);
    at::Tensor side, normal;
    if (parameters.keep_normal) {
      normal = normal_of(x, result);
    } else if (parameters.columns.numel() != 0) {
      const BatchNormForward part{.z = {},
                                  .mean = result.mean.index_select(0, parameters.columns),
                                  .rstd = result.rstd.index_select(0, parameters.columns)};
      side = normal_of(x.index_select(1, parameters.columns), part);
    }
    ctx->save_for_backward({result.z, result.rstd, side, normal, w, b});
    ctx->saved_data["training"] = options.training;
    ctx->saved_data["slope"] = options.negative_slope;
    return result.z;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    return once_differentiable("batch_norm_act", first_order(ctx, gradients[0]));
  }

 private:
  // The library's derivative of a batch norm whose input is the normalised one: mean 0, deviation 1, weight /
  // deviation.
  static tensor_list first_order(AutogradContext* ctx, const at::Tensor& dz) {
    const at::NoGradGuard no_grad;
    const auto kept = ctx->get_saved_variables();
    const at::Tensor &z = kept[0], &rstd = kept[1], &side = kept[2], &weight = kept[4], &bias = kept[5];
    const double slope = ctx->saved_data["slope"].toDouble();
    const NormParameters parameters = internal::norm_parameters(z, z.size(1), weight, bias);
    const auto wide = internal::wide_type(z);
    const at::Tensor normal = parameters.keep_normal ? kept[3].to(wide) : recovered(z, side, parameters, slope);
    at::Tensor dy = dz.to(wide);
    if (slope != 1) dy = at::where(z < 0, dy * slope, dy);
    const at::Tensor zeros = at::zeros_like(parameters.weight), ones = at::ones_like(zeros);
    const auto [dx, dweight, dbias] = at::native_batch_norm_backward(
        dy.contiguous(), normal.contiguous(), parameters.weight * rstd.to(wide), zeros, ones, zeros, ones,
        ctx->saved_data["training"].toBool(), 0.0, std::array<bool, 3>{true, true, true});
    return {dx.to(z.scalar_type()),
            weight.defined() ? dweight.to(weight.scalar_type()) : at::Tensor(),
            bias.defined() ? dbias.to(bias.scalar_type()) : at::Tensor(),
            {},
            {},
            {}};
  }
};

void check_channels(const char* name, const at::Tensor& values, const at::Tensor& x) {
  GANTRY_CHECK(!values.defined() || (values.dim() == 1 && values.size(0) == x.size(1)),
               "batch_norm_act: {} {} does not fit input {}", name, c10::str(values.sizes()), c10::str(x.sizes()));
}

}  // namespace

at::Tensor batch_norm_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& running_mean, const at::Tensor& running_var,
                          const BatchNormActOptions& options) {
  GANTRY_CHECK(x.dim() >= 2 && x.is_floating_point(),
               "batch_norm_act: input is {} {}, expected [batch, channels, ...] of a floating-point type",
               c10::toString(x.scalar_type()), c10::str(x.sizes()));
  check_channels("weight", weight, x);
  check_channels("bias", bias, x);
  check_channels("running mean", running_mean, x);
  check_channels("running variance", running_var, x);
  GANTRY_CHECK(options.negative_slope > 0, "batch_norm_act: slope is {}, expected a positive one, which has an inverse",
               options.negative_slope);
  GANTRY_CHECK(running_mean.defined() == running_var.defined() && (options.training || running_mean.defined()),
               "batch_norm_act: needs a running mean and a running variance, or neither in training");
  GANTRY_CHECK(!options.training || x.numel() != x.size(1),
               "batch_norm_act: input {} has one value a channel, training needs more", c10::str(x.sizes()));
  const auto w = optional_of(weight), b = optional_of(bias), m = optional_of(running_mean),
             v = optional_of(running_var);
  if (tracks_gradients({x, weight, bias})) return BatchNormActFunction::apply(x, w, b, m, v, options);
  return run_batch_norm(x, w, b, m, v, options).z;
}

}  // namespace gantry::kernels
