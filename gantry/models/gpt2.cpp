#include "gantry/models/gpt2.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/kernels/dropout/dropout.h"
#include "gantry/models/activation.h"

namespace gantry::models {
namespace {

constexpr auto kInOut = kernels::WeightLayout::kInOut;

}  // namespace

Gpt2LayerImpl::Gpt2LayerImpl(const spec::ModelConfig& c)
    : sizes_{.heads = c.num_heads, .kv_heads = c.num_heads, .head_dim = c.head_dim, .causal = true},
      activation_(to_layer(c.activation)) {
  ln_1_ = register_module("ln_1", layers::LayerNorm(c.hidden_size, c.norm_eps));
  auto attention = register_module("attn", std::make_shared<torch::nn::Module>());
  c_attn_ = attention->register_module("c_attn", layers::Linear(c.hidden_size, 3 * c.hidden_size, true, kInOut));
  attn_proj_ = attention->register_module("c_proj", layers::Linear(c.hidden_size, c.hidden_size, true, kInOut));
  ln_2_ = register_module("ln_2", layers::LayerNorm(c.hidden_size, c.norm_eps));
  auto mlp = register_module("mlp", std::make_shared<torch::nn::Module>());
  c_fc_ = mlp->register_module("c_fc", layers::Linear(c.hidden_size, c.intermediate_size, true, kInOut));
  mlp_proj_ = mlp->register_module("c_proj", layers::Linear(c.intermediate_size, c.hidden_size, true, kInOut));
}

void Gpt2LayerImpl::forward(layers::ResidualStream& stream, const layers::AttentionContext& context, std::size_t layer,
                            const layers::LayerMemory& memory) const {
  const at::Tensor attention_input = stream.normalize(ln_1_, memory.norm);
  const at::Tensor heads = layers::attend(attention_input, {c_attn_.get()}, sizes_, context, layer, memory.attention);
  stream.add(attn_proj_->forward(heads, layers::kept_input(memory.attention)));
  stream.add(layers::feed_forward(stream.normalize(ln_2_, memory.norm), *c_fc_, *mlp_proj_, activation_, memory.mlp));
}

Gpt2::Gpt2(const spec::ModelConfig& config) : LanguageModel(config) {
  auto transformer = register_module("transformer", std::make_shared<torch::nn::Module>());
  wte_ = transformer->register_module("wte", layers::Embedding(config.vocab_size, config.hidden_size));
  wpe_ = transformer->register_module("wpe", layers::Embedding(config.max_positions, config.hidden_size));
  auto list = transformer->register_module("h", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    layers_.push_back(list->register_module(std::to_string(i), Gpt2Layer(config)));
  }
  ln_f_ = transformer->register_module("ln_f", layers::LayerNorm(config.hidden_size, config.norm_eps));
  if (!config.tied_embeddings) {
    lm_head_ = register_module("lm_head", layers::Linear(config.hidden_size, config.vocab_size, false));
  }
}

at::Tensor Gpt2::head_weight() const { return lm_head_ ? lm_head_->weight : wte_->weight; }

at::Tensor Gpt2::hidden(const ModelInputs& inputs) {
  layers::AttentionContext context;
  context.positions = positions_of(inputs);
  context.row_starts = inputs.row_starts;
  context.key_mask = inputs.key_mask;
  context.cache = inputs.cache;
  context.dropout = is_training() ? config().attention_dropout : 0.0;
  const std::int64_t past = inputs.cache == nullptr ? 0 : inputs.cache->length();
  GANTRY_CHECK(past + inputs.ids.size(1) <= config().max_positions || inputs.positions.defined(),
               "this model has {} learned positions; {} tokens do not fit", config().max_positions,
               past + inputs.ids.size(1));
  const double dropout = is_training() ? config().dropout : 0.0;
  const at::Tensor embedded = wte_->forward(inputs.ids) + wpe_->forward(context.positions);
  layers::ResidualStream stream(kernels::dropout(embedded, kernels::draw_dropout(dropout)), dropout);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (inputs.trace != nullptr) inputs.trace->push_back(stream.finish());
    layers_[i]->forward(stream, context, i, memory()[i]);
  }
  const at::Tensor result = stream.normalize(ln_f_, memory().back().norm);
  if (inputs.trace != nullptr) inputs.trace->push_back(result);
  if (inputs.cache != nullptr) inputs.cache->advance(inputs.ids.size(1));
  return result;
}

}  // namespace gantry::models
