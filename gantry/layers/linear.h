#pragma once
// Projections with torch's state-dict names. Parameters are created without initialisation (a loader or an initialiser
// fills them), so building a large model touches no memory.
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "gantry/kernels/linear/linear.h"
#include "gantry/kernels/stash/stash.h"
#include "gantry/layers/memory_mode.h"

namespace gantry::layers {

/// Low-rank update y += scale * B(A(x)) beside a frozen weight. Method: LoRA, Hu et al. 2021, section 4.1.
/// State-dict names as in PEFT: lora_A.weight [rank, in], lora_B.weight [out, rank].
class LoraImpl : public torch::nn::Module {
 public:
  /// A is uniform as torch's Linear initialises it (from the global generator), B is zero. `like` gives type and
  /// device.
  LoraImpl(std::int64_t in, std::int64_t out, std::int64_t rank, double alpha, const at::Tensor& like);
  at::Tensor forward(const at::Tensor& x) const;
  const at::Tensor& a() const { return a_; }
  const at::Tensor& b() const { return b_; }
  double scale() const { return scale_; }

 private:
  at::Tensor a_, b_;
  double scale_;
};
TORCH_MODULE(Lora);

/// y = x W^T + b with weight [out, in], or [in, out] for WeightLayout::kInOut.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(std::int64_t in, std::int64_t out, bool bias,
             kernels::WeightLayout layout = kernels::WeightLayout::kOutIn);

  /// x [..., in] -> [..., out]. kInt8 keeps x in int8 for the weight's gradient (not with a low-rank update).
  at::Tensor forward(const at::Tensor& x, kernels::KeepInput keep = kernels::KeepInput::kTensor) const;
  /// Freezes weight and bias and adds a low-rank update. Once per module.
  void add_lora(std::int64_t rank, double alpha);
  /// Folds the update into the weight (W += scale * B A) and removes it.
  void merge_lora();

  at::Tensor weight, bias;
  Lora lora{nullptr};
  kernels::WeightLayout layout() const { return layout_; }

  const std::int64_t in_features, out_features;

 private:
  kernels::WeightLayout layout_;
};
TORCH_MODULE(Linear);

/// The outputs of several projections of the same input side by side, [..., sum of out]; one matrix product where their
/// weights are neighbours in memory.
at::Tensor fused_forward(const at::Tensor& x, const std::vector<const LinearImpl*>& projections,
                         kernels::KeepInput keep = kernels::KeepInput::kTensor);

/// How a block in this mode keeps the inputs of its linears.
inline kernels::KeepInput kept_input(MemoryMode memory) {
  return memory == MemoryMode::kInt8 ? kernels::KeepInput::kInt8 : kernels::KeepInput::kTensor;
}

/// Weights, biases and low-rank updates, those that exist.
std::vector<at::Tensor> parameters_of(const std::vector<const LinearImpl*>& projections);

}  // namespace gantry::layers
