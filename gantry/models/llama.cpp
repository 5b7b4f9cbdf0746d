#include "gantry/models/llama.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "gantry/models/activation.h"
#include "gantry/spec/rope.h"

namespace gantry::models {

LlamaAttentionImpl::LlamaAttentionImpl(const spec::ModelConfig& c)
    : sizes_{.heads = c.num_heads, .kv_heads = c.num_kv_heads, .head_dim = c.head_dim, .causal = true} {
  q_proj = register_module("q_proj", layers::Linear(c.hidden_size, c.q_size(), c.qkv_bias));
  k_proj = register_module("k_proj", layers::Linear(c.hidden_size, c.kv_size(), c.qkv_bias));
  v_proj = register_module("v_proj", layers::Linear(c.hidden_size, c.kv_size(), c.qkv_bias));
  o_proj = register_module("o_proj", layers::Linear(c.q_size(), c.hidden_size, c.output_bias));
}

at::Tensor LlamaAttentionImpl::forward(const at::Tensor& x, const layers::AttentionContext& context, std::size_t layer,
                                       layers::MemoryMode memory) const {
  const at::Tensor heads =
      layers::attend(x, {q_proj.get(), k_proj.get(), v_proj.get()}, sizes_, context, layer, memory);
  return o_proj->forward(heads, layers::kept_input(memory));
}

LlamaLayerImpl::LlamaLayerImpl(const spec::ModelConfig& c) {
  input_layernorm = register_module("input_layernorm", layers::RmsNorm(c.hidden_size, c.norm_eps));
  self_attn = register_module("self_attn", LlamaAttention(c));
  post_attention_layernorm = register_module("post_attention_layernorm", layers::RmsNorm(c.hidden_size, c.norm_eps));
  mlp =
      register_module("mlp", layers::GatedMlp(c.hidden_size, c.intermediate_size, c.mlp_bias, to_layer(c.activation)));
}

void LlamaLayerImpl::forward(layers::ResidualStream& stream, const layers::AttentionContext& context, std::size_t layer,
                             const layers::LayerMemory& memory) const {
  const at::Tensor attention_input = stream.normalize(input_layernorm, memory.norm);
  stream.add(self_attn->forward(attention_input, context, layer, memory.attention));
  stream.add(mlp->forward(stream.normalize(post_attention_layernorm, memory.norm), memory.mlp));
}

Llama::Llama(const spec::ModelConfig& config) : LanguageModel(config) {
  auto model = register_module("model", std::make_shared<torch::nn::Module>());
  embed_tokens_ = model->register_module("embed_tokens", layers::Embedding(config.vocab_size, config.hidden_size));
  auto list = model->register_module("layers", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    layers_.push_back(list->register_module(std::to_string(i), LlamaLayer(config)));
  }
  norm_ = model->register_module("norm", layers::RmsNorm(config.hidden_size, config.norm_eps));
  if (!config.tied_embeddings) {
    lm_head_ = register_module("lm_head", layers::Linear(config.hidden_size, config.vocab_size, false));
  }
}

at::Tensor Llama::head_weight() const { return lm_head_ ? lm_head_->weight : embed_tokens_->weight; }

const kernels::RopeTables& Llama::rope(std::int64_t length) {
  if (length <= rope_length_) return rope_;
  // "dynamic" frequencies depend on the length itself, so those tables are exact for it rather than doubled.
  const bool exact = config().rope.type == spec::RopeType::kDynamic;
  rope_length_ = exact ? length : std::max<std::int64_t>(256, 2 * length);
  const spec::RopeFrequencies frequencies = spec::rope_frequencies(config(), length);
  rope_ = layers::make_rope_tables(frequencies.inverse, frequencies.attention_factor, rope_length_, device());
  return rope_;
}

at::Tensor Llama::hidden(const ModelInputs& inputs) {
  layers::AttentionContext context;
  context.positions = positions_of(inputs);
  context.row_starts = inputs.row_starts;
  context.key_mask = inputs.key_mask;
  context.cache = inputs.cache;
  context.rope =
      rope(inputs.positions.defined() ? inputs.positions.max().item<std::int64_t>() + 1
                                      : inputs.ids.size(1) + (inputs.cache != nullptr ? inputs.cache->length() : 0));
  layers::ResidualStream stream(embed_tokens_->forward(inputs.ids), 0.0);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (inputs.trace != nullptr) inputs.trace->push_back(stream.finish());
    layers_[i]->forward(stream, context, i, memory()[i]);
  }
  const at::Tensor result = stream.normalize(norm_, memory().back().norm);
  if (inputs.trace != nullptr) inputs.trace->push_back(result);
  if (inputs.cache != nullptr) inputs.cache->advance(inputs.ids.size(1));
  return result;
}

}  // namespace gantry::models
