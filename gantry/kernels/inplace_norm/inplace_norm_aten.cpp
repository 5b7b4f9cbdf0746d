// The columns that are not inverted, and the operators as compositions of ATen.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cpu/last_bits.h"
#include "gantry/kernels/dropout/dropout.h"
#include "gantry/kernels/inplace_norm/inplace_norm_internal.h"

namespace gantry::kernels {
namespace internal {
namespace {

constexpr std::int64_t kLargestSideShare = 8;  // one n-th of the columns

// Weights below make y = weight * xhat lose bits to underflow, or its inverse overflow.
double smallest_weight(at::ScalarType type) {
  if (type == at::kDouble) return 0x1p-900;
  return type == at::kHalf ? 0x1p-10 : 0x1p-100;
}

// Whether the column is inverted; written so that NaN and infinity are not.
template <class Wide>
struct Condition {
  Wide limit, smallest;
  bool holds(Wide weight, Wide bias) const {
    const Wide size = std::abs(weight);
    return size >= smallest && size <= std::numeric_limits<Wide>::max() && std::abs(bias) <= limit * size;
  }
};

template <class Wide>
at::Tensor side_columns(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType type) {
  const Wide *w = weight.const_data_ptr<Wide>(), *b = bias.const_data_ptr<Wide>();
  const std::int64_t n = weight.numel();
  const Condition<Wide> condition{.limit = static_cast<Wide>(inversion_limit(type)),
                                  .smallest = static_cast<Wide>(smallest_weight(type))};
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += condition.holds(w[i], b[i]) ? 0 : 1;
  at::Tensor columns = at::empty({count}, at::kLong);
  auto* next = columns.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; count != 0 && i < n; ++i) {
    if (!condition.holds(w[i], b[i])) *next++ = i;
  }
  return columns;
}

at::Tensor column_sum(const at::Tensor& x, std::int64_t rows) { return x.reshape({rows, x.size(-1)}).sum(0); }

}  // namespace

NormParameters norm_parameters(const at::Tensor& x, std::int64_t n, const at::Tensor& weight, const at::Tensor& bias) {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(x);
  const auto options = x.options().dtype(type).requires_grad(false);
  NormParameters result;
  result.weight = weight.defined() ? weight.to(type).contiguous() : at::ones({n}, options);
  result.bias = bias.defined() ? bias.to(type).contiguous() : at::zeros({n}, options);
  const at::Tensor w = result.weight.cpu(), b = result.bias.cpu();
  result.columns =
      type == at::kDouble ? side_columns<double>(w, b, x.scalar_type()) : side_columns<float>(w, b, x.scalar_type());
  result.keep_normal = result.columns.numel() > std::max<std::int64_t>(1, n / kLargestSideShare);
  if (result.keep_normal) result.columns = at::empty({0}, at::kLong);
  result.columns = result.columns.to(x.device());
  return result;
}

at::Tensor inverse_weight(const NormParameters& parameters) {
  at::Tensor inverse = parameters.weight.reciprocal();
  if (parameters.columns.numel() != 0) inverse.index_fill_(0, parameters.columns, 0);
  return inverse;
}

std::int64_t carrier_columns(const at::Tensor& x, const NormParameters& parameters) {
  if (!x.is_cpu() || x.scalar_type() != at::kFloat || parameters.keep_normal) return -1;
  constexpr float kCarrierLimit = 0x1p5;
  const Condition<float> condition{.limit = kCarrierLimit, .smallest = static_cast<float>(smallest_weight(at::kFloat))};
  const auto *weight = parameters.weight.const_data_ptr<float>(), *bias = parameters.bias.const_data_ptr<float>();
  std::int64_t neighbours = 0;
  for (std::int64_t i = 0; i < parameters.weight.numel(); ++i) {
    neighbours = condition.holds(weight[i], bias[i]) ? neighbours + 1 : 0;
    if (neighbours == kLastBitsWidth) return i + 1 - kLastBitsWidth;
  }
  return -1;
}

NormForward norm_forward_aten(const at::Tensor& x, const at::Tensor& residual, const NormParameters& parameters,
                              const DropoutAddNormOptions& options) {
  const auto type = x.scalar_type();
  NormForward result;
  at::Tensor v = dropout_reference(x.to(wide_type(x)), options.dropout);
  if (residual.defined()) v = v + residual.to(v.scalar_type());
  if (options.return_sum) {
    result.sum = v.to(type, /*non_blocking=*/false, /*copy=*/true);
    v = result.sum.to(v.scalar_type());
  }
  if (options.norm == NormKind::kLayer) v = v - v.mean(-1, true);
  const at::Tensor rstd = v.square().mean(-1, true).add(options.eps).rsqrt();
  const at::Tensor normal = v * rstd;
  result.y = (normal * parameters.weight + parameters.bias).to(type);
  result.rstd = rstd.reshape({-1});
  result.side =
      normal.index_select(-1, parameters.columns).reshape({result.rstd.size(0), parameters.columns.size(0)}).to(type);
  if (parameters.keep_normal) result.normal = normal.to(type);
  return result;
}

NormGradients norm_backward_aten(const NormSaved& saved, const NormParameters& parameters,
                                 const DropoutAddNormOptions& options) {
  const auto type = saved.dy.scalar_type(), wide = wide_type(saved.dy);
  const std::int64_t n = saved.dy.size(-1);
  at::Tensor normal;
  if (parameters.keep_normal) {
    normal = saved.normal.to(wide);
  } else {
    const at::Tensor inverse = inverse_weight(parameters);
    const at::Tensor inverted = (saved.y.to(wide) - parameters.bias) * inverse;
    normal = at::where(inverse == 0, at::zeros_like(inverted), inverted).reshape({saved.rstd.size(0), n});
    normal.index_copy_(1, parameters.columns, saved.side.to(wide));
    normal = normal.reshape(saved.dy.sizes());
  }
  const at::Tensor dy = saved.dy.to(wide), scaled = dy * parameters.weight;
  at::Tensor dv = scaled - normal * (scaled * normal).mean(-1, true);
  if (options.norm == NormKind::kLayer) dv = dv - scaled.mean(-1, true);
  dv = dv * saved.rstd.reshape(scaled.sizes().slice(0, scaled.dim() - 1)).unsqueeze(-1);
  if (saved.dsum.defined()) dv = dv + saved.dsum.to(wide);
  NormGradients result{.dx = dropout_reference(dv, options.dropout).to(type),
                       .dresidual = {},
                       .dweight = column_sum(dy * normal, saved.rstd.size(0)),
                       .dbias = column_sum(dy, saved.rstd.size(0))};
  if (options.dropout.threshold != 0) result.dresidual = dv.to(type);
  return result;
}

}  // namespace internal

double inversion_limit(at::ScalarType type) {
  if (type == at::kDouble) return 0x1p20;
  if (type == at::kFloat) return 0x1p7;
  return 0x1p1;
}

std::pair<at::Tensor, at::Tensor> dropout_add_norm_reference(const at::Tensor& x, const at::Tensor& residual,
                                                             const at::Tensor& weight, const at::Tensor& bias,
                                                             const DropoutAddNormOptions& options) {
  const auto wide = internal::wide_type(x);
  at::Tensor v = dropout_reference(x, options.dropout);
  if (residual.defined()) v = v + residual;
  const at::Tensor sum = v;
  v = v.to(wide);
  if (options.norm == NormKind::kLayer) v = v - v.mean(-1, true);
  at::Tensor y = v * v.square().mean(-1, true).add(options.eps).rsqrt();
  if (weight.defined()) y = y * weight.to(wide);
  if (bias.defined()) y = y + bias.to(wide);
  return {options.return_sum ? sum : at::Tensor(), y.to(x.scalar_type())};
}

}  // namespace gantry::kernels
