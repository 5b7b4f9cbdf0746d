#pragma once
// Normalisation layers, torch's state-dict names. Each has a plain form and one that first adds what a block computed
// to the residual stream, with its dropout, in the same pass.
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "gantry/kernels/inplace_norm/inplace_norm.h"
#include "gantry/layers/memory_mode.h"

namespace gantry::layers {

struct AddNormOptions {
  double dropout = 0;  ///< of the update; its seed comes from torch's generator, the same in every mode
  MemoryMode memory = LayerMemory{}.norm;
  bool wants_sum = true;  ///< false where the sum goes no further (post-norm blocks)
};

struct AddNormResult {
  at::Tensor sum;  ///< residual + dropout(update); undefined unless wanted
  at::Tensor normal;
};

class RmsNormImpl : public torch::nn::Module {
 public:
  RmsNormImpl(std::int64_t size, double eps);
  at::Tensor forward(const at::Tensor& x, MemoryMode memory = LayerMemory{}.norm) const;
  AddNormResult add_forward(const at::Tensor& update, const at::Tensor& residual, const AddNormOptions& options) const;

  at::Tensor weight;

 private:
  double eps_;
};
TORCH_MODULE(RmsNorm);

class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(std::int64_t size, double eps);
  at::Tensor forward(const at::Tensor& x, MemoryMode memory = LayerMemory{}.norm) const;
  AddNormResult add_forward(const at::Tensor& update, const at::Tensor& residual, const AddNormOptions& options) const;

  at::Tensor weight, bias;

 private:
  double eps_;
};
TORCH_MODULE(LayerNorm);

}  // namespace gantry::layers
