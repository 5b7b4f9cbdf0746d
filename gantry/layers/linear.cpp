#include "gantry/layers/linear.h"

#include <ATen/ATen.h>

#include <cmath>

#include "gantry/base/check.h"

namespace gantry::layers {

LoraImpl::LoraImpl(std::int64_t in, std::int64_t out, std::int64_t rank, double alpha, const at::Tensor& like)
    : scale_(alpha / static_cast<double>(rank)) {
  const auto options = like.options().requires_grad(false);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  a_ = at::empty({rank, in}, options.dtype(at::kFloat)).uniform_(-bound, bound).to(options);
  b_ = at::zeros({out, rank}, options);
  // Registered under PEFT's names, each as a module with a `weight`.
  const auto hold = [&](const char* name, at::Tensor& parameter) {
    auto holder = std::make_shared<torch::nn::Module>();
    parameter = holder->register_parameter("weight", parameter);
    register_module(name, holder);
  };
  hold("lora_A", a_);
  hold("lora_B", b_);
}

at::Tensor LoraImpl::forward(const at::Tensor& x) const { return kernels::linear(kernels::linear(x, a_), b_) * scale_; }

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out, bool with_bias, kernels::WeightLayout layout)
    : in_features(in), out_features(out), layout_(layout) {
  const bool out_in = layout == kernels::WeightLayout::kOutIn;
  weight = register_parameter("weight", out_in ? at::empty({out, in}) : at::empty({in, out}));
  if (with_bias) bias = register_parameter("bias", at::empty({out}));
}

at::Tensor LinearImpl::forward(const at::Tensor& x, kernels::KeepInput keep) const {
  const bool int8 = keep == kernels::KeepInput::kInt8 && !lora;
  const at::Tensor y =
      int8 ? kernels::linear_int8_input(x, weight, bias, layout_) : kernels::linear(x, weight, bias, layout_);
  return lora ? y + lora->forward(x) : y;
}

void LinearImpl::add_lora(std::int64_t rank, double alpha) {
  GANTRY_CHECK(!lora, "a low-rank update is already attached to this projection");
  GANTRY_CHECK(rank > 0 && rank <= std::min(in_features, out_features),
               "LoRA rank {} must be between 1 and {} for a projection of {} to {} features", rank,
               std::min(in_features, out_features), in_features, out_features);
  weight.set_requires_grad(false);
  if (bias.defined()) bias.set_requires_grad(false);
  lora = register_module("lora", Lora(in_features, out_features, rank, alpha, weight));
}

void LinearImpl::merge_lora() {
  if (!lora) return;
  const at::NoGradGuard no_grad;
  const at::Tensor update = at::mm(lora->b().to(at::kFloat), lora->a().to(at::kFloat)) * lora->scale();
  const bool out_in = layout_ == kernels::WeightLayout::kOutIn;
  weight.copy_(weight.to(at::kFloat) + (out_in ? update : update.t()));
  unregister_module("lora");
  lora = nullptr;
}

at::Tensor fused_forward(const at::Tensor& x, const std::vector<const LinearImpl*>& projections,
                         kernels::KeepInput keep) {
  std::vector<at::Tensor> weights, biases, updates;
  bool any_update = false;
  for (const auto* projection : projections) {
    weights.push_back(projection->weight);
    if (projection->bias.defined()) biases.push_back(projection->bias);
    any_update = any_update || projection->lora;
  }
  const bool int8 = keep == kernels::KeepInput::kInt8 && !any_update;
  const at::Tensor y =
      int8 ? kernels::fused_linear_int8_input(x, weights, biases) : kernels::fused_linear(x, weights, biases);
  if (!any_update) return y;
  for (const auto* projection : projections) {
    if (projection->lora) {
      updates.push_back(projection->lora->forward(x));
    } else {
      auto shape = x.sizes().vec();
      shape.back() = projection->out_features;
      updates.push_back(at::zeros(shape, x.options()));
    }
  }
  return y + at::cat(updates, -1);
}

std::vector<at::Tensor> parameters_of(const std::vector<const LinearImpl*>& projections) {
  std::vector<at::Tensor> result;
  for (const auto* projection : projections) {
    result.push_back(projection->weight);
    if (projection->bias.defined()) result.push_back(projection->bias);
    if (projection->lora) result.insert(result.end(), {projection->lora->a(), projection->lora->b()});
  }
  return result;
}

}  // namespace gantry::layers
