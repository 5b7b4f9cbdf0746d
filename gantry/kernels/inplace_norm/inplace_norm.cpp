#include "gantry/kernels/inplace_norm/inplace_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "gantry/kernels/common.h"
#include "gantry/kernels/inplace_norm/inplace_norm_internal.h"
#include "gantry/kernels/inplace_norm/inplace_norm_raw.h"
#include "gantry/kernels/norm_gradients.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/stash/stash.h"

namespace gantry::kernels {
namespace {

using internal::NormForward;
using internal::NormGradients;
using internal::NormParameters;
using internal::NormSaved;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

template <class Raw>
auto forward_kernel(NormKind kind) {
  return kind == NormKind::kLayer ? GANTRY_ISA_SELECT(inplace_norm_forward<Raw, true>)
                                  : GANTRY_ISA_SELECT(inplace_norm_forward<Raw, false>);
}

template <class Raw>
auto backward_kernel(NormKind kind) {
  return kind == NormKind::kLayer ? GANTRY_ISA_SELECT(inplace_norm_backward<Raw, true>)
                                  : GANTRY_ISA_SELECT(inplace_norm_backward<Raw, false>);
}

}  // namespace

namespace internal {

NormForward norm_forward(const at::Tensor& x, const at::Tensor& residual, const NormParameters& parameters,
                         const DropoutAddNormOptions& options, bool keeps) {
  if (!has_raw_kernel(x)) return norm_forward_aten(x, residual, parameters, options);
  const std::int64_t n = x.size(-1), rows = row_count(x), side = keeps ? parameters.columns.size(0) : 0;
  NormForward result{.y = at::empty_like(x),
                     .sum = options.return_sum ? at::empty_like(x) : at::Tensor(),
                     .rstd = parameters.carrier < 0 ? at::empty({rows}, x.options().dtype(at::kFloat)) : at::Tensor(),
                     .side = at::empty({rows, side}, x.options()),
                     .normal = keeps && parameters.keep_normal ? at::empty_like(x) : at::Tensor()};
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const InplaceNormForwardArgs<Raw> args{.x = raw_const<Raw>(x),
                                           .residual = raw_const<Raw>(residual),
                                           .sum = raw<Raw>(result.sum),
                                           .weight = raw_const<float>(parameters.weight),
                                           .bias = raw_const<float>(parameters.bias),
                                           .y = raw<Raw>(result.y),
                                           .rstd = raw<float>(result.rstd),
                                           .side_columns = raw_const<std::int64_t>(parameters.columns),
                                           .side = raw<Raw>(result.side),
                                           .normal = raw<Raw>(result.normal),
                                           .side_count = side,
                                           .n = n,
                                           .eps = static_cast<float>(options.eps),
                                           .dropout = options.dropout,
                                           .carrier = parameters.carrier};
    const auto kernel = forward_kernel<Raw>(options.norm);
    at::parallel_for(0, rows, row_grain(n), [&](std::int64_t b, std::int64_t e) { kernel(args, b, e); });
  });
  return result;
}

NormGradients norm_backward(const NormSaved& saved, const NormParameters& parameters,
                            const DropoutAddNormOptions& options) {
  if (!has_raw_kernel(saved.dy)) return norm_backward_aten(saved, parameters, options);
  const at::Tensor& dy = saved.dy;
  const std::int64_t n = dy.size(-1), rows = row_count(dy), parts = row_parts(rows);
  NormGradients result{.dx = at::empty_like(dy),
                       .dresidual = options.dropout.threshold != 0 ? at::empty_like(dy) : at::Tensor(),
                       .dweight = {},
                       .dbias = {}};
  const at::Tensor inverse = parameters.keep_normal ? at::Tensor() : inverse_weight(parameters);
  const at::Tensor partial = at::zeros({parts, 2, n}, dy.options().dtype(at::kFloat));
  dispatch_raw(dy.scalar_type(), [&]<class Raw>() {
    const auto kernel = backward_kernel<Raw>(options.norm);
    for_row_parts(rows, parts, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      kernel({.dy = raw_const<Raw>(dy),
              .y = raw_const<Raw>(saved.y),
              .normal = raw_const<Raw>(saved.normal),
              .rstd = raw_const<float>(saved.rstd),
              .weight = raw_const<float>(parameters.weight),
              .bias = raw_const<float>(parameters.bias),
              .inverse = raw_const<float>(inverse),
              .side_columns = raw_const<std::int64_t>(parameters.columns),
              .side = raw_const<Raw>(saved.side),
              .side_count = parameters.columns.size(0),
              .dsum = raw_const<Raw>(saved.dsum),
              .dresidual = raw<Raw>(result.dresidual),
              .dx = raw<Raw>(result.dx),
              .dweight = raw<float>(partial) + 2 * part * n,
              .dbias = raw<float>(partial) + (2 * part + 1) * n,
              .n = n,
              .dropout = options.dropout,
              .carrier = parameters.carrier,
              .eps = static_cast<float>(options.eps)},
             begin, end);
    });
  });
  const at::Tensor sums = partial.sum(0);
  result.dweight = sums[0];
  result.dbias = sums[1];
  return result;
}

}  // namespace internal

namespace {

void keep_options(AutogradContext* ctx, const DropoutAddNormOptions& options) {
  ctx->saved_data["layer"] = options.norm == NormKind::kLayer;
  ctx->saved_data["eps"] = options.eps;
  ctx->saved_data["seed"] = static_cast<std::int64_t>(options.dropout.seed);
  ctx->saved_data["stream"] = static_cast<std::int64_t>(options.dropout.stream);
  ctx->saved_data["threshold"] = static_cast<std::int64_t>(options.dropout.threshold);
  ctx->saved_data["int8"] = options.keep == NormKeep::kInt8;
}

DropoutAddNormOptions kept_options(AutogradContext* ctx) {
  return {.norm = ctx->saved_data["layer"].toBool() ? NormKind::kLayer : NormKind::kRms,
          .eps = ctx->saved_data["eps"].toDouble(),
          .dropout = {.seed = static_cast<std::uint64_t>(ctx->saved_data["seed"].toInt()),
                      .stream = static_cast<std::uint64_t>(ctx->saved_data["stream"].toInt()),
                      .threshold = static_cast<std::uint32_t>(ctx->saved_data["threshold"].toInt())},
          .keep = ctx->saved_data["int8"].toBool() ? NormKeep::kInt8 : NormKeep::kOutput};
}

// In int8 the normalised input of all columns is kept, and none is inverted.
NormParameters parameters_for(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, NormKeep keep) {
  NormParameters result = internal::norm_parameters(x, x.size(-1), weight, bias);
  if (keep == NormKeep::kInt8 && !result.keep_normal) {
    result.keep_normal = true;
    result.columns = at::empty({0}, at::kLong);
  }
  if (keep == NormKeep::kOutputAlone) result.carrier = internal::carrier_columns(x, result);
  return result;
}

at::Tensor contiguous_or_undefined(const at::Tensor& x) { return x.defined() ? x.contiguous() : x; }

at::Tensor value_of(const std::optional<at::Tensor>& x) { return x.has_value() ? *x : at::Tensor(); }

// `edge` counts the tensors that the function was given, without those left out.
at::Tensor parameter_gradient(AutogradContext* ctx, std::size_t edge, const at::Tensor& parameter,
                              const at::Tensor& gradient) {
  if (!parameter.defined() || !ctx->needs_input_grad(edge)) return {};
  return deliver_gradient(parameter, gradient);
}

struct InplaceNormFunction : torch::autograd::Function<InplaceNormFunction> {
  // Returns y, and the sum where options.return_sum is set.
  static tensor_list forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& given_residual,
                             const std::optional<at::Tensor>& given_weight, const std::optional<at::Tensor>& given_bias,
                             const DropoutAddNormOptions& options) {
    const at::Tensor residual = value_of(given_residual), weight = value_of(given_weight), bias = value_of(given_bias);
    const NormParameters parameters = parameters_for(x, weight, bias, options.keep);
    const NormForward result =
        internal::norm_forward(x.contiguous(), contiguous_or_undefined(residual), parameters, options, true);
    const bool sides = parameters.columns.size(0) != 0;
    const bool int8 = options.keep == NormKeep::kInt8;
    const Stashed packed = int8 ? stash(result.normal) : Stashed{};
    ctx->save_for_backward({parameters.keep_normal ? at::Tensor() : result.y, result.rstd,
                            sides ? result.side : at::Tensor(), int8 ? packed.values : result.normal, weight, bias,
                            packed.scales});
    ctx->saved_data["residual"] = residual.defined();
    ctx->saved_data["carrier"] = parameters.carrier;
    keep_options(ctx, options);
    ctx->set_materialize_grads(false);
    if (options.return_sum) return {result.y, result.sum};
    return {result.y};
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    return once_differentiable("in-place norm", first_order(ctx, std::move(gradients)));
  }

 private:
  static tensor_list first_order(AutogradContext* ctx, tensor_list gradients) {
    const at::NoGradGuard no_grad;
    const auto kept = ctx->get_saved_variables();
    const at::Tensor &weight = kept[4], &bias = kept[5];
    NormSaved saved{.dy = contiguous_or_undefined(gradients[0]),
                    .dsum = gradients.size() > 1 ? contiguous_or_undefined(gradients[1]) : at::Tensor(),
                    .y = kept[0],
                    .rstd = kept[1],
                    .side = kept[2],
                    .normal = kept[3]};
    const DropoutAddNormOptions options = kept_options(ctx);
    if (!saved.dy.defined()) {
      if (!saved.dsum.defined()) return {{}, {}, {}, {}, {}};
      saved.dy = at::zeros_like(saved.dsum);
    }
    if (options.keep == NormKeep::kInt8) {
      saved.normal = unstash({kept[3], kept[6], saved.dy.sizes().vec(), saved.dy.scalar_type()});
    }
    NormParameters parameters = parameters_for(saved.dy, weight, bias, options.keep);
    parameters.carrier = ctx->saved_data["carrier"].toInt();
    if (!saved.side.defined()) saved.side = at::empty({row_count(saved.dy), 0}, saved.dy.options());
    const NormGradients result = internal::norm_backward(saved, parameters, options);
    const at::Tensor dresidual = result.dresidual.defined() ? result.dresidual : result.dx;
    const bool adds = ctx->saved_data["residual"].toBool();
    const std::size_t weight_edge = adds ? 2 : 1, bias_edge = weight_edge + (weight.defined() ? 1 : 0);
    return {result.dx,
            adds ? dresidual : at::Tensor(),
            parameter_gradient(ctx, weight_edge, weight, result.dweight),
            parameter_gradient(ctx, bias_edge, bias, result.dbias),
            {}};
  }
};

void check_parameter(const char* op, const char* name, const at::Tensor& parameter, const at::Tensor& x) {
  if (!parameter.defined()) return;
  GANTRY_CHECK(parameter.dim() == 1 && parameter.size(0) == x.size(-1), "{}: {} {} does not fit input {}", op, name,
               c10::str(parameter.sizes()), c10::str(x.sizes()));
  GANTRY_CHECK(parameter.is_floating_point(), "{}: {} is {}, expected a floating-point type", op, name,
               c10::toString(parameter.scalar_type()));
}

std::pair<at::Tensor, at::Tensor> run_inplace_norm(const char* op, const at::Tensor& x, const at::Tensor& residual,
                                                   const at::Tensor& weight, const at::Tensor& bias,
                                                   const DropoutAddNormOptions& options) {
  GANTRY_CHECK(x.dim() >= 1 && x.is_floating_point(), "{}: input is {} {}, expected a floating-point type and an axis",
               op, c10::toString(x.scalar_type()), c10::str(x.sizes()));
  check_parameter(op, "weight", weight, x);
  check_parameter(op, "bias", bias, x);
  if (tracks_gradients({x, residual, weight, bias})) {
    const auto result =
        InplaceNormFunction::apply(x, optional_of(residual), optional_of(weight), optional_of(bias), options);
    return {options.return_sum ? result[1] : at::Tensor(), result[0]};
  }
  const NormForward result =
      internal::norm_forward(x.contiguous(), contiguous_or_undefined(residual),
                             internal::norm_parameters(x, x.size(-1), weight, bias), options, false);
  return {result.sum, result.y};
}

}  // namespace

at::Tensor layer_norm_inplace(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps,
                              NormKeep keep) {
  return run_inplace_norm("layer_norm_inplace", x, {}, weight, bias,
                          {.norm = NormKind::kLayer, .eps = eps, .keep = keep})
      .second;
}

at::Tensor rms_norm_inplace(const at::Tensor& x, const at::Tensor& weight, double eps, NormKeep keep) {
  return run_inplace_norm("rms_norm_inplace", x, {}, weight, {}, {.norm = NormKind::kRms, .eps = eps, .keep = keep})
      .second;
}

std::pair<at::Tensor, at::Tensor> dropout_add_norm(const at::Tensor& x, const at::Tensor& residual,
                                                   const at::Tensor& weight, const at::Tensor& bias,
                                                   const DropoutAddNormOptions& options) {
  GANTRY_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
               "dropout_add_norm: input {} {} and residual {} {} differ", c10::toString(x.scalar_type()),
               c10::str(x.sizes()), c10::toString(residual.scalar_type()), c10::str(residual.sizes()));
  GANTRY_CHECK(options.norm == NormKind::kLayer || !bias.defined(), "dropout_add_norm: an RMS norm takes no bias");
  return run_inplace_norm("dropout_add_norm", x, residual, weight, bias, options);
}

}  // namespace gantry::kernels
