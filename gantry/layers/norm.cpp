#include "gantry/layers/norm.h"

#include <ATen/ATen.h>

#include "gantry/kernels/dropout/dropout.h"
#include "gantry/kernels/layer_norm/layer_norm.h"
#include "gantry/kernels/rms_norm/rms_norm.h"

namespace gantry::layers {
namespace {

using kernels::NormKind;

// Without gradients nothing is kept, and the plain kernels do less.
bool plain(MemoryMode memory) { return memory == MemoryMode::kStore || !at::GradMode::is_enabled(); }

kernels::NormKeep norm_keep(MemoryMode memory) {
  return memory == MemoryMode::kInt8 ? kernels::NormKeep::kInt8 : kernels::NormKeep::kOutputAlone;
}

// `fused(x, residual)` is the operator that keeps the sum.
template <class Fused>
AddNormResult add_norm(const at::Tensor& update, const at::Tensor& residual, const at::Tensor& weight,
                       const at::Tensor& bias, NormKind kind, double eps, const AddNormOptions& options,
                       const Fused& fused) {
  const kernels::DropoutRule rule = kernels::draw_dropout(options.dropout);
  if (plain(options.memory)) {
    auto [sum, normal] = fused(rule.threshold == 0 ? update : kernels::dropout_reference(update, rule), residual);
    return {options.wants_sum ? sum : at::Tensor(), normal};
  }
  auto [sum, normal] = kernels::dropout_add_norm(
      update, residual, weight, bias,
      {.norm = kind, .eps = eps, .dropout = rule, .return_sum = options.wants_sum, .keep = norm_keep(options.memory)});
  return {sum, normal};
}

}  // namespace

RmsNormImpl::RmsNormImpl(std::int64_t size, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({size}));
}

at::Tensor RmsNormImpl::forward(const at::Tensor& x, MemoryMode memory) const {
  if (plain(memory)) return kernels::rms_norm(x, weight, eps_);
  return kernels::rms_norm_inplace(x, weight, eps_, norm_keep(memory));
}

AddNormResult RmsNormImpl::add_forward(const at::Tensor& update, const at::Tensor& residual,
                                       const AddNormOptions& options) const {
  return add_norm(update, residual, weight, {}, NormKind::kRms, eps_, options,
                  [this](const auto& x, const auto& r) { return kernels::add_rms_norm(x, r, weight, eps_); });
}

LayerNormImpl::LayerNormImpl(std::int64_t size, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({size}));
  bias = register_parameter("bias", at::empty({size}));
}

at::Tensor LayerNormImpl::forward(const at::Tensor& x, MemoryMode memory) const {
  if (plain(memory)) return kernels::layer_norm(x, weight, bias, eps_);
  return kernels::layer_norm_inplace(x, weight, bias, eps_, norm_keep(memory));
}

AddNormResult LayerNormImpl::add_forward(const at::Tensor& update, const at::Tensor& residual,
                                         const AddNormOptions& options) const {
  return add_norm(update, residual, weight, bias, NormKind::kLayer, eps_, options,
                  [this](const auto& x, const auto& r) { return kernels::add_layer_norm(x, r, weight, bias, eps_); });
}

}  // namespace gantry::layers
