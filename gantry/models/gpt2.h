#pragma once
// GPT-2: pre-norm decoder with LayerNorm, learned positions and projections stored [in, out].
#include <vector>

#include "gantry/layers/attention.h"
#include "gantry/layers/embedding.h"
#include "gantry/layers/linear.h"
#include "gantry/layers/mlp.h"
#include "gantry/layers/norm.h"
#include "gantry/layers/residual_stream.h"
#include "gantry/models/language_model.h"

namespace gantry::models {

class Gpt2LayerImpl : public torch::nn::Module {
 public:
  explicit Gpt2LayerImpl(const spec::ModelConfig& config);

  /// The layer's first norm on the stream, its blocks, and their updates left with the stream.
  void forward(layers::ResidualStream& stream, const layers::AttentionContext& context, std::size_t layer,
               const layers::LayerMemory& memory) const;

 private:
  layers::LayerNorm ln_1_{nullptr}, ln_2_{nullptr};
  layers::HeadSizes sizes_;
  layers::MlpActivation activation_;
  layers::Linear c_attn_{nullptr}, attn_proj_{nullptr}, c_fc_{nullptr}, mlp_proj_{nullptr};
};
TORCH_MODULE(Gpt2Layer);

class Gpt2 : public LanguageModel {
 public:
  explicit Gpt2(const spec::ModelConfig& config);
  at::Tensor hidden(const ModelInputs& inputs) override;
  at::Tensor head_weight() const override;

 private:
  layers::Embedding wte_{nullptr}, wpe_{nullptr};
  std::vector<Gpt2Layer> layers_;
  layers::LayerNorm ln_f_{nullptr};
  layers::Linear lm_head_{nullptr};
};

}  // namespace gantry::models
