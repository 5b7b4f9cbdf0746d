#pragma once
// The layers of a model family alone, without embedding and head: what memory modes are measured on.
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "gantry/layers/attention.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/spec/config.h"

namespace gantry::models {

class LayerStack : public torch::nn::Module {
 public:
  explicit LayerStack(const spec::ModelConfig& config) : memory(static_cast<std::size_t>(config.num_layers)) {}

  /// Hidden states [B, T, hidden] through all layers; dropout of the configuration in training mode. Pre-norm families
  /// give the residual stream, without the final norm.
  virtual at::Tensor forward(const at::Tensor& x) = 0;

  /// One entry a layer.
  std::vector<layers::LayerMemory> memory;
};

/// config.num_layers layers with random weights, fp32, on the CPU; `seed` governs them.
std::shared_ptr<LayerStack> make_layer_stack(const spec::ModelConfig& config, std::uint64_t seed);

/// Counts what layers keep. Makes its layers once, so that several modes cost a few forward passes each.
class SavedLayerBytes {
 public:
  /// Hidden states [batch, tokens, hidden] of `type` on the CPU.
  SavedLayerBytes(const spec::ModelConfig& config, std::int64_t batch, std::int64_t tokens, at::ScalarType type);

  /// Bytes that the backward pass of one layer among its like keeps: what a further layer adds to a stack of one,
  /// weights excepted. Deterministic.
  std::int64_t of(const layers::LayerMemory& memory);

 private:
  at::Tensor leaf_;
  std::shared_ptr<LayerStack> one_, two_;
};

/// The same for a single mode.
std::int64_t saved_layer_bytes(const spec::ModelConfig& config, const layers::LayerMemory& memory, std::int64_t batch,
                               std::int64_t tokens, at::ScalarType type);

}  // namespace gantry::models
