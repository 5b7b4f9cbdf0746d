// In-place layer and RMS norm, alone and with dropout and residual.
//
// The side columns of a norm (kernels/inplace_norm) are as many as the values of weight and bias ask for, usually none,
// while a traced operator has results of fixed shapes. They travel behind the elements of `rstd`, in the same storage:
// backward finds them there, and says so where a copy of `rstd` has lost them.
#include <torch/library.h>

#include <tuple>

#include "gantry/kernels/common.h"
#include "gantry/kernels/inplace_norm/inplace_norm_internal.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;
using kernels::internal::NormForward;
using kernels::internal::NormGradients;
using kernels::internal::NormParameters;

NormKind norm_kind(std::string_view kind) {
  GANTRY_CHECK(kind == "layer" || kind == "rms", "norm: kind is '{}', expected layer or rms", kind);
  return kind == "layer" ? NormKind::kLayer : NormKind::kRms;
}

void check_norm_inputs(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  GANTRY_CHECK(x.dim() >= 1 && x.size(-1) > 0 && x.is_floating_point(),
               "norm: input is {} {}, expected a floating-point type and a last axis", c10::toString(x.scalar_type()),
               c10::str(x.sizes()));
  for (const at::Tensor& parameter : {weight, bias}) {
    GANTRY_CHECK(!parameter.defined() || (parameter.dim() == 1 && parameter.size(0) == x.size(-1)),
                 "norm: weight or bias {} does not fit input {}", c10::str(parameter.sizes()), c10::str(x.sizes()));
  }
}

std::int64_t tail_columns(const NormParameters& parameters, std::int64_t n) {
  return parameters.keep_normal ? n : parameters.columns.size(0);
}

// A view of what lies behind rstd: [rows, columns] in `type`.
at::Tensor tail_of(const at::Tensor& rstd, std::int64_t columns, at::ScalarType type) {
  const std::int64_t rows = rstd.numel();
  const auto item = static_cast<std::int64_t>(c10::elementSize(type));
  const std::int64_t first = rstd.storage_offset() * rstd.element_size() + rows * rstd.element_size();
  GANTRY_CHECK(
      static_cast<std::int64_t>(rstd.storage().nbytes()) >= first + rows * columns * item,
      "norm: the {} columns kept beside the output are lost, since rstd was copied between forward and backward "
      "(saved-tensor hooks?); use the memory mode 'store' here",
      columns);
  at::Tensor tail = at::empty({0}, rstd.options().dtype(type));
  return tail.set_(rstd.storage(), first / item, {rows, columns}, {columns, 1});
}

at::Tensor with_tail(const at::Tensor& rstd, const at::Tensor& kept, std::int64_t columns, at::ScalarType type) {
  if (columns == 0) return rstd;
  const std::int64_t rows = rstd.numel(), item = rstd.element_size();
  const std::int64_t bytes = rows * columns * static_cast<std::int64_t>(c10::elementSize(type));
  const at::Tensor both = at::empty({rows + (bytes + item - 1) / item}, rstd.options());
  at::Tensor result = both.narrow(0, 0, rows).copy_(rstd);
  tail_of(result, columns, type).copy_(kept.reshape({rows, columns}));
  return result;
}

// Backward reads y in its own type, so that this type decides which columns cannot be inverted.
struct Prepared {
  NormParameters parameters;
  std::int64_t columns;
};

Prepared prepare(const at::Tensor& x, at::ScalarType type, const at::Tensor& weight, const at::Tensor& bias) {
  const NormParameters parameters =
      kernels::internal::norm_parameters(at::empty({0}, x.options().dtype(type)), x.size(-1), weight, bias);
  return {parameters, tail_columns(parameters, x.size(-1))};
}

at::Tensor kept_rstd(const NormForward& result, const Prepared& prepared, at::ScalarType type) {
  const at::Tensor& kept = prepared.parameters.keep_normal ? result.normal : result.side;
  return with_tail(result.rstd, kept, prepared.columns, type);
}

std::tuple<at::Tensor, at::Tensor> norm_op(const at::Tensor& x, const OptionalTensor& given_weight,
                                           const OptionalTensor& given_bias, double eps, std::string_view kind,
                                           at::ScalarType dtype) {
  const BelowAutograd below;
  const at::Tensor weight = value_or_undefined(given_weight), bias = value_or_undefined(given_bias);
  check_norm_inputs(x, weight, bias);
  const DropoutAddNormOptions options{.norm = norm_kind(kind), .eps = eps};
  const Prepared prepared = prepare(x, dtype, weight, bias);
  const NormForward result = kernels::internal::norm_forward(x.contiguous(), {}, prepared.parameters, options, true);
  return {result.y.to(dtype), kept_rstd(result, prepared, dtype)};
}

NormGradients run_backward(kernels::internal::NormSaved saved, const at::Tensor& rstd, const at::Tensor& weight,
                           const at::Tensor& bias, const DropoutAddNormOptions& options) {
  const auto type = saved.y.scalar_type();
  GANTRY_CHECK(
      saved.dy.sizes() == saved.y.sizes() && saved.dy.scalar_type() == type &&
          (!saved.dsum.defined() || (saved.dsum.sizes() == saved.y.sizes() && saved.dsum.scalar_type() == type)),
      "norm: gradient {} {} does not fit output {} {}", c10::toString(saved.dy.scalar_type()),
      c10::str(saved.dy.sizes()), c10::toString(type), c10::str(saved.y.sizes()));
  GANTRY_CHECK(rstd.is_contiguous() && rstd.scalar_type() == kernels::internal::wide_type(saved.y) &&
                   rstd.numel() == saved.y.numel() / saved.y.size(-1),
               "norm: rstd {} {} does not fit output {} {}", c10::toString(rstd.scalar_type()), c10::str(rstd.sizes()),
               c10::toString(type), c10::str(saved.y.sizes()));
  const Prepared prepared = prepare(saved.y, type, weight, bias);
  saved.y = saved.y.contiguous();
  saved.rstd = rstd;
  saved.side = at::empty({rstd.numel(), 0}, saved.y.options());
  if (prepared.columns != 0) {
    const at::Tensor tail = tail_of(rstd, prepared.columns, type);
    (prepared.parameters.keep_normal ? saved.normal : saved.side) = tail;
    if (prepared.parameters.keep_normal) saved.normal = tail.view(saved.y.sizes());
  }
  return kernels::internal::norm_backward(saved, prepared.parameters, options);
}

at::Tensor parameter_gradient(const at::Tensor& parameter, const at::Tensor& gradient, const at::Tensor& like) {
  // The sums of weight and bias are rows of one tensor; a result must not be a view of another.
  if (!parameter.defined()) return absent(like);
  return at::empty(gradient.sizes(), gradient.options().dtype(parameter.scalar_type())).copy_(gradient);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_backward_op(const at::Tensor& dy, const at::Tensor& y,
                                                                const at::Tensor& rstd,
                                                                const OptionalTensor& given_weight,
                                                                const OptionalTensor& given_bias,
                                                                std::string_view kind) {
  const BelowAutograd below;
  const at::Tensor weight = value_or_undefined(given_weight), bias = value_or_undefined(given_bias);
  check_norm_inputs(y, weight, bias);
  const NormGradients result =
      run_backward({.dy = dy.contiguous(), .dsum = {}, .y = y, .rstd = {}, .side = {}, .normal = {}}, rstd, weight,
                   bias, {.norm = norm_kind(kind)});
  return {result.dx, parameter_gradient(weight, result.dweight, y), parameter_gradient(bias, result.dbias, y)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> dropout_add_norm_op(const at::Tensor& x, const at::Tensor& residual,
                                                                   const OptionalTensor& given_weight,
                                                                   const OptionalTensor& given_bias,
                                                                   const OptionalTensor& seed, double p, double eps,
                                                                   std::string_view kind, bool return_sum) {
  const BelowAutograd below;
  const at::Tensor weight = value_or_undefined(given_weight), bias = value_or_undefined(given_bias);
  check_norm_inputs(x, weight, bias);
  GANTRY_CHECK(x.sizes() == residual.sizes() && x.scalar_type() == residual.scalar_type(),
               "dropout_add_norm: input {} {} and residual {} {} differ", c10::toString(x.scalar_type()),
               c10::str(x.sizes()), c10::toString(residual.scalar_type()), c10::str(residual.sizes()));
  const auto type = x.scalar_type();
  const DropoutAddNormOptions options{
      .norm = norm_kind(kind), .eps = eps, .dropout = rule_of(seed, p), .return_sum = return_sum};
  const Prepared prepared = prepare(x, type, weight, bias);
  const NormForward result =
      kernels::internal::norm_forward(x.contiguous(), residual.contiguous(), prepared.parameters, options, true);
  return {result.y, or_absent(result.sum, x), kept_rstd(result, prepared, type)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> dropout_add_norm_backward_op(
    const OptionalTensor& dy, const OptionalTensor& dsum, const at::Tensor& y, const at::Tensor& rstd,
    const OptionalTensor& given_weight, const OptionalTensor& given_bias, const OptionalTensor& seed, double p,
    std::string_view kind) {
  const BelowAutograd below;
  const at::Tensor weight = value_or_undefined(given_weight), bias = value_or_undefined(given_bias);
  check_norm_inputs(y, weight, bias);
  const at::Tensor gradient = dy.has_value() ? dy->contiguous() : at::zeros_like(y);
  const NormGradients result = run_backward({.dy = gradient,
                                             .dsum = dsum.has_value() ? dsum->contiguous() : at::Tensor(),
                                             .y = y,
                                             .rstd = {},
                                             .side = {},
                                             .normal = {}},
                                            rstd, weight, bias, {.norm = norm_kind(kind), .dropout = rule_of(seed, p)});
  const at::Tensor dresidual = result.dresidual.defined() ? result.dresidual : result.dx.clone();
  return {result.dx, dresidual, parameter_gradient(weight, result.dweight, y),
          parameter_gradient(bias, result.dbias, y)};
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("norm", gantry::python::norm_op);
  library.impl("norm_backward", gantry::python::norm_backward_op);
  library.impl("dropout_add_norm", gantry::python::dropout_add_norm_op);
  library.impl("dropout_add_norm_backward", gantry::python::dropout_add_norm_backward_op);
}
