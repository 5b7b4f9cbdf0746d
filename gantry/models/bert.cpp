#include "gantry/models/bert.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/kernels/dropout/dropout.h"
#include "gantry/models/activation.h"

namespace gantry::models {

BertLayerImpl::BertLayerImpl(const spec::ModelConfig& c)
    : sizes_{.heads = c.num_heads, .kv_heads = c.num_heads, .head_dim = c.head_dim, .causal = false},
      activation_(to_layer(c.activation)),
      dropout_(c.dropout) {
  const auto folder = [](torch::nn::Module& parent, const char* name) {
    return parent.register_module(name, std::make_shared<torch::nn::Module>());
  };
  auto attention = folder(*this, "attention");
  auto self = folder(*attention, "self");
  query_ = self->register_module("query", layers::Linear(c.hidden_size, c.hidden_size, true));
  key_ = self->register_module("key", layers::Linear(c.hidden_size, c.hidden_size, true));
  value_ = self->register_module("value", layers::Linear(c.hidden_size, c.hidden_size, true));
  auto attention_output = folder(*attention, "output");
  attention_dense_ = attention_output->register_module("dense", layers::Linear(c.hidden_size, c.hidden_size, true));
  attention_norm_ = attention_output->register_module("LayerNorm", layers::LayerNorm(c.hidden_size, c.norm_eps));
  intermediate_ =
      folder(*this, "intermediate")->register_module("dense", layers::Linear(c.hidden_size, c.intermediate_size, true));
  auto output = folder(*this, "output");
  output_ = output->register_module("dense", layers::Linear(c.intermediate_size, c.hidden_size, true));
  output_norm_ = output->register_module("LayerNorm", layers::LayerNorm(c.hidden_size, c.norm_eps));
}

at::Tensor BertLayerImpl::forward(const at::Tensor& x, const layers::AttentionContext& context, std::size_t layer,
                                  const layers::LayerMemory& memory) const {
  const layers::AddNormOptions add{
      .dropout = is_training() ? dropout_ : 0.0, .memory = memory.norm, .wants_sum = false};
  const at::Tensor heads =
      layers::attend(x, {query_.get(), key_.get(), value_.get()}, sizes_, context, layer, memory.attention);
  const at::Tensor attention = attention_dense_->forward(heads, layers::kept_input(memory.attention));
  const at::Tensor middle = attention_norm_->add_forward(attention, x, add).normal;
  const at::Tensor update = layers::feed_forward(middle, *intermediate_, *output_, activation_, memory.mlp);
  return output_norm_->add_forward(update, middle, add).normal;
}

Bert::Bert(const spec::ModelConfig& config) : LanguageModel(config) {
  auto encoder = register_module(config.model_type, std::make_shared<torch::nn::Module>());
  auto embeddings = encoder->register_module("embeddings", std::make_shared<torch::nn::Module>());
  const std::int64_t size = config.hidden_size;
  words_ = embeddings->register_module("word_embeddings", layers::Embedding(config.vocab_size, size));
  positions_ = embeddings->register_module("position_embeddings", layers::Embedding(config.max_positions, size));
  token_types_ = embeddings->register_module("token_type_embeddings", layers::Embedding(config.type_vocab_size, size));
  embedding_norm_ = embeddings->register_module("LayerNorm", layers::LayerNorm(size, config.norm_eps));
  auto list = encoder->register_module("encoder", std::make_shared<torch::nn::Module>())
                  ->register_module("layer", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    layers_.push_back(list->register_module(std::to_string(i), BertLayer(config)));
  }
  build_head(config);
}

void Bert::build_head(const spec::ModelConfig& config) {
  const std::int64_t size = config.hidden_size;
  const bool roberta = config.model_type == "roberta";
  auto head = roberta ? register_module("lm_head", std::make_shared<torch::nn::Module>())
                      : register_module("cls", std::make_shared<torch::nn::Module>())
                            ->register_module("predictions", std::make_shared<torch::nn::Module>());
  auto transform = roberta ? head : head->register_module("transform", std::make_shared<torch::nn::Module>());
  head_dense_ = transform->register_module("dense", layers::Linear(size, size, true));
  head_norm_ =
      transform->register_module(roberta ? "layer_norm" : "LayerNorm", layers::LayerNorm(size, config.norm_eps));
  head_bias_ = head->register_parameter("bias", at::empty({config.vocab_size}));
  if (!config.tied_embeddings) {
    decoder_ = head->register_module("decoder", layers::Linear(size, config.vocab_size, false));
  }
}

at::Tensor Bert::head_weight() const { return decoder_ ? decoder_->weight : words_->weight; }

at::Tensor Bert::embed(const ModelInputs& inputs, const at::Tensor& positions) {
  const at::Tensor types = inputs.token_types.defined() ? inputs.token_types : at::zeros_like(inputs.ids);
  const at::Tensor sum = words_->forward(inputs.ids) + positions_->forward(positions) + token_types_->forward(types);
  const at::Tensor normal = embedding_norm_->forward(sum);
  return kernels::dropout(normal, kernels::draw_dropout(is_training() ? config().dropout : 0.0));
}

at::Tensor Bert::hidden(const ModelInputs& inputs) {
  GANTRY_CHECK(inputs.cache == nullptr, "{} is an encoder; it has no KV cache and can't generate text",
               config().model_type);
  layers::AttentionContext context;
  context.positions = positions_of(inputs) + config().position_offset;
  GANTRY_CHECK(inputs.ids.size(1) + config().position_offset <= config().max_positions,
               "this model has {} learned positions; {} tokens do not fit",
               config().max_positions - config().position_offset, inputs.ids.size(1));
  context.row_starts = inputs.row_starts;
  context.key_mask = inputs.key_mask;
  context.dropout = is_training() ? config().attention_dropout : 0.0;
  at::Tensor x = embed(inputs, context.positions);
  if (inputs.trace != nullptr) inputs.trace->push_back(x);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i]->forward(x, context, i, memory()[i]);
    if (inputs.trace != nullptr) inputs.trace->push_back(x);
  }
  // RoBERTa's head always uses the erf form; BERT's uses the model's activation.
  const auto activation =
      config().model_type == "roberta" ? layers::MlpActivation::kGeluErf : to_layer(config().activation);
  return head_norm_->forward(layers::activate(head_dense_->forward(x), activation));
}

}  // namespace gantry::models
