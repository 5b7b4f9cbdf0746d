#include "gantry/layers/mlp.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/kernels/swiglu/swiglu.h"

namespace gantry::layers {

at::Tensor activate(const at::Tensor& x, MlpActivation activation) {
  switch (activation) {
    case MlpActivation::kSilu: return at::silu(x);
    case MlpActivation::kGeluErf: return at::gelu(x);
    case MlpActivation::kGeluTanh: return at::gelu(x, "tanh");
    case MlpActivation::kQuickGelu: return x * at::sigmoid(1.702 * x);
    case MlpActivation::kRelu: return at::relu(x);
  }
  GANTRY_UNREACHABLE();
}

GatedMlpImpl::GatedMlpImpl(std::int64_t size, std::int64_t inner, bool bias, MlpActivation activation)
    : activation_(activation) {
  gate_proj = register_module("gate_proj", Linear(size, inner, bias));
  up_proj = register_module("up_proj", Linear(size, inner, bias));
  down_proj = register_module("down_proj", Linear(inner, size, bias));
}

at::Tensor GatedMlpImpl::forward(const at::Tensor& x) const {
  const at::Tensor gate_up = fused_forward(x, {gate_proj.get(), up_proj.get()});
  if (activation_ == MlpActivation::kSilu) return down_proj->forward(kernels::swiglu(gate_up));
  const auto parts = gate_up.chunk(2, -1);
  return down_proj->forward(activate(parts[0], activation_) * parts[1]);
}

}  // namespace gantry::layers
