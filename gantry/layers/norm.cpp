#include "gantry/layers/norm.h"

#include <ATen/ATen.h>

#include "gantry/kernels/layer_norm/layer_norm.h"
#include "gantry/kernels/rms_norm/rms_norm.h"

namespace gantry::layers {

RmsNormImpl::RmsNormImpl(std::int64_t size, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({size}));
}

at::Tensor RmsNormImpl::forward(const at::Tensor& x) const { return kernels::rms_norm(x, weight, eps_); }

std::pair<at::Tensor, at::Tensor> RmsNormImpl::add_forward(const at::Tensor& x, const at::Tensor& residual) const {
  return kernels::add_rms_norm(x, residual, weight, eps_);
}

LayerNormImpl::LayerNormImpl(std::int64_t size, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::empty({size}));
  bias = register_parameter("bias", at::empty({size}));
}

at::Tensor LayerNormImpl::forward(const at::Tensor& x) const { return kernels::layer_norm(x, weight, bias, eps_); }

std::pair<at::Tensor, at::Tensor> LayerNormImpl::add_forward(const at::Tensor& x, const at::Tensor& residual) const {
  return kernels::add_layer_norm(x, residual, weight, bias, eps_);
}

}  // namespace gantry::layers
