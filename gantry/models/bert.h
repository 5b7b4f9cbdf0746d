#pragma once
// BERT and RoBERTa with their masked-LM heads: post-norm encoder, learned positions, bidirectional attention.
#include <vector>

#include "gantry/layers/attention.h"
#include "gantry/layers/embedding.h"
#include "gantry/layers/linear.h"
#include "gantry/layers/mlp.h"
#include "gantry/layers/norm.h"
#include "gantry/models/language_model.h"

namespace gantry::models {

class BertLayerImpl : public torch::nn::Module {
 public:
  explicit BertLayerImpl(const spec::ModelConfig& config);
  at::Tensor forward(const at::Tensor& x, const layers::AttentionContext& context, std::size_t layer,
                     const layers::LayerMemory& memory) const;

 private:
  layers::HeadSizes sizes_;
  layers::MlpActivation activation_;
  double dropout_;
  layers::Linear query_{nullptr}, key_{nullptr}, value_{nullptr}, attention_dense_{nullptr};
  layers::Linear intermediate_{nullptr}, output_{nullptr};
  layers::LayerNorm attention_norm_{nullptr}, output_norm_{nullptr};
};
TORCH_MODULE(BertLayer);

/// hidden() returns the masked-LM head's transformed states, so that logits() and loss() work as for decoders.
class Bert : public LanguageModel {
 public:
  explicit Bert(const spec::ModelConfig& config);
  at::Tensor hidden(const ModelInputs& inputs) override;
  at::Tensor head_weight() const override;
  at::Tensor head_bias() const override { return head_bias_; }

 private:
  void build_head(const spec::ModelConfig& config);
  at::Tensor embed(const ModelInputs& inputs, const at::Tensor& positions);

  layers::Embedding words_{nullptr}, positions_{nullptr}, token_types_{nullptr};
  layers::LayerNorm embedding_norm_{nullptr}, head_norm_{nullptr};
  std::vector<BertLayer> layers_;
  layers::Linear head_dense_{nullptr}, decoder_{nullptr};
  at::Tensor head_bias_;
};

}  // namespace gantry::models
