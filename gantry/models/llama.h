#pragma once
// Llama, Mistral, Qwen2, SmolLM: pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and a gated
// MLP.
#include <vector>

#include "gantry/layers/attention.h"
#include "gantry/layers/embedding.h"
#include "gantry/layers/linear.h"
#include "gantry/layers/mlp.h"
#include "gantry/layers/norm.h"
#include "gantry/layers/residual_stream.h"
#include "gantry/models/language_model.h"

namespace gantry::models {

class LlamaAttentionImpl : public torch::nn::Module {
 public:
  explicit LlamaAttentionImpl(const spec::ModelConfig& config);
  at::Tensor forward(const at::Tensor& x, const layers::AttentionContext& context, std::size_t layer,
                     layers::MemoryMode memory) const;

  layers::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};

 private:
  layers::HeadSizes sizes_;
};
TORCH_MODULE(LlamaAttention);

class LlamaLayerImpl : public torch::nn::Module {
 public:
  explicit LlamaLayerImpl(const spec::ModelConfig& config);
  /// The layer's first norm on the stream, its blocks, and their updates left with the stream.
  void forward(layers::ResidualStream& stream, const layers::AttentionContext& context, std::size_t layer,
               const layers::LayerMemory& memory) const;

  LlamaAttention self_attn{nullptr};
  layers::GatedMlp mlp{nullptr};
  layers::RmsNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
};
TORCH_MODULE(LlamaLayer);

class Llama : public LanguageModel {
 public:
  explicit Llama(const spec::ModelConfig& config);
  at::Tensor hidden(const ModelInputs& inputs) override;
  at::Tensor head_weight() const override;

 private:
  /// Tables long enough for positions below `length`; grown by doubling, so that decoding rarely rebuilds them.
  const kernels::RopeTables& rope(std::int64_t length);

  layers::Embedding embed_tokens_{nullptr};
  std::vector<LlamaLayer> layers_;
  layers::RmsNorm norm_{nullptr};
  layers::Linear lm_head_{nullptr};
  kernels::RopeTables rope_;
  std::int64_t rope_length_ = 0;
};

}  // namespace gantry::models
