#include "gantry/models/layer_stack.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "gantry/base/check.h"
#include "gantry/layers/residual_stream.h"
#include "gantry/models/bert.h"
#include "gantry/models/gpt2.h"
#include "gantry/models/llama.h"
#include "gantry/spec/rope.h"
#include "gantry/tensor/live_bytes.h"

namespace gantry::models {
namespace {

template <class Layer>
class FamilyStack : public LayerStack {
 public:
  explicit FamilyStack(const spec::ModelConfig& config) : LayerStack(config), config_(config) {
    for (std::int64_t i = 0; i < config.num_layers; ++i) {
      layers_.push_back(register_module(std::to_string(i), Layer(config)));
    }
  }

  at::Tensor forward(const at::Tensor& x) override {
    const layers::AttentionContext context = context_for(x);
    if constexpr (std::is_same_v<Layer, BertLayer>) {
      at::Tensor states = x;
      for (std::size_t i = 0; i < layers_.size(); ++i) states = layers_[i]->forward(states, context, i, memory.at(i));
      return states;
    } else {
      layers::ResidualStream stream(x, this->is_training() ? config_.dropout : 0.0);
      for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i]->forward(stream, context, i, memory.at(i));
      return stream.finish();
    }
  }

 private:
  layers::AttentionContext context_for(const at::Tensor& x) {
    layers::AttentionContext context;
    context.dropout = this->is_training() ? config_.attention_dropout : 0.0;
    if (positions_.numel() != x.size(0) * x.size(1) || positions_.size(0) != x.size(0)) {
      positions_ = at::arange(x.size(1), at::kLong).unsqueeze(0).expand({x.size(0), x.size(1)}).contiguous();
      if constexpr (std::is_same_v<Layer, LlamaLayer>) {
        const spec::RopeFrequencies frequencies = spec::rope_frequencies(config_, x.size(1));
        rope_ = layers::make_rope_tables(frequencies.inverse, frequencies.attention_factor, x.size(1), at::kCPU);
      }
    }
    context.positions = positions_;
    context.rope = rope_;
    return context;
  }

  spec::ModelConfig config_;
  std::vector<Layer> layers_;
  at::Tensor positions_ = at::empty({0, 0}, at::kLong);
  kernels::RopeTables rope_;
};

std::shared_ptr<LayerStack> make_family(const spec::ModelConfig& config) {
  switch (config.family) {
    case spec::Family::kLlama: return std::make_shared<FamilyStack<LlamaLayer>>(config);
    case spec::Family::kGpt2: return std::make_shared<FamilyStack<Gpt2Layer>>(config);
    case spec::Family::kBert: return std::make_shared<FamilyStack<BertLayer>>(config);
  }
  GANTRY_UNREACHABLE();
}

std::shared_ptr<LayerStack> stack_of(spec::ModelConfig config, std::int64_t count, const at::Tensor& leaf) {
  config.num_layers = count;
  auto stack = make_layer_stack(config, 0);
  stack->to(leaf.scalar_type());
  stack->train();
  const at::NoGradGuard no_grad;
  stack->forward(leaf.detach());  // tables and positions, which all passes share, exist afterwards
  return stack;
}

// What a graph over the stack keeps alive when all values but its end's are gone.
std::int64_t kept_bytes(LayerStack& stack, const layers::LayerMemory& memory, const at::Tensor& leaf) {
  stack.memory.assign(stack.memory.size(), memory);
  const tensor::LiveBytes live;
  // Not a leaf, so that the graph keeps it only where a layer does.
  at::Tensor out = stack.forward(leaf * 1.0);
  const auto node = out.grad_fn();
  out.reset();
  return live.now();
}

}  // namespace

std::shared_ptr<LayerStack> make_layer_stack(const spec::ModelConfig& config, std::uint64_t seed) {
  auto stack = make_family(config);
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const auto& item : stack->named_parameters()) {
    at::Tensor parameter = item.value();
    if (parameter.dim() == 2) {
      parameter.normal_(0.0, config.initializer_range, generator);
    } else {
      parameter.fill_(item.key().ends_with("weight") ? 1.0 : 0.0);
    }
  }
  return stack;
}

SavedLayerBytes::SavedLayerBytes(const spec::ModelConfig& config, std::int64_t batch, std::int64_t tokens,
                                 at::ScalarType type)
    : leaf_(at::ones({batch, tokens, config.hidden_size}, at::dtype(type)).requires_grad_()),
      one_(stack_of(config, 1, leaf_)),
      two_(stack_of(config, 2, leaf_)) {}

std::int64_t SavedLayerBytes::of(const layers::LayerMemory& memory) {
  const at::AutoGradMode gradients(true);
  return kept_bytes(*two_, memory, leaf_) - kept_bytes(*one_, memory, leaf_);
}

std::int64_t saved_layer_bytes(const spec::ModelConfig& config, const layers::LayerMemory& memory, std::int64_t batch,
                               std::int64_t tokens, at::ScalarType type) {
  return SavedLayerBytes(config, batch, tokens, type).of(memory);
}

}  // namespace gantry::models
