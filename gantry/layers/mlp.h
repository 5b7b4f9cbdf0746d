#pragma once
// Feed-forward blocks.
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "gantry/layers/linear.h"
#include "gantry/layers/memory_mode.h"

namespace gantry::layers {

enum class MlpActivation { kSilu, kGeluErf, kGeluTanh, kQuickGelu, kRelu };

/// By ATen's operators, keeping what these keep.
at::Tensor activate(const at::Tensor& x, MlpActivation activation);

/// second(act(first(x))), for the families that name the two linears themselves; both of one weight layout.
///
/// Modes that this block takes otherwise: ReLU keeps its output alone in every mode up to kRecompute, as ATen's does.
/// With low-rank updates, which no fused node knows, kRecompute is kInPlace, and kRerun and kInt8 keep the block's
/// input (in int8) and run all of it again.
at::Tensor feed_forward(const at::Tensor& x, const LinearImpl& first, const LinearImpl& second,
                        MlpActivation activation, MemoryMode memory);

/// down(act(gate(x)) * up(x)); Llama's names gate_proj, up_proj, down_proj.
class GatedMlpImpl : public torch::nn::Module {
 public:
  GatedMlpImpl(std::int64_t size, std::int64_t inner, bool bias, MlpActivation activation);
  /// kInPlace is kRecompute: a product has no side to tell. With low-rank updates the product is kept too, and kRerun
  /// and kInt8 run the whole block again.
  at::Tensor forward(const at::Tensor& x, MemoryMode memory = LayerMemory{}.mlp) const;

  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};

 private:
  at::Tensor plain(const at::Tensor& x, MemoryMode memory) const;

  MlpActivation activation_;
};
TORCH_MODULE(GatedMlp);

}  // namespace gantry::layers
