#pragma once
// Feed-forward blocks.
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "gantry/layers/linear.h"

namespace gantry::layers {

enum class MlpActivation { kSilu, kGeluErf, kGeluTanh, kQuickGelu, kRelu };

at::Tensor activate(const at::Tensor& x, MlpActivation activation);

/// down(act(gate(x)) * up(x)); Llama's names gate_proj, up_proj, down_proj.
class GatedMlpImpl : public torch::nn::Module {
 public:
  GatedMlpImpl(std::int64_t size, std::int64_t inner, bool bias, MlpActivation activation);
  at::Tensor forward(const at::Tensor& x) const;

  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};

 private:
  MlpActivation activation_;
};
TORCH_MODULE(GatedMlp);

}  // namespace gantry::layers
