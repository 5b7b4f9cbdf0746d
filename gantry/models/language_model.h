#pragma once
// The interface of every language model, and what a forward pass takes.
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gantry/layers/kv_cache.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/spec/config.h"

namespace gantry::models {

struct ModelInputs {
  at::Tensor ids = {};          ///< int64 [B, T]
  at::Tensor positions = {};    ///< int64 [B, T]; undefined: 0.. (behind the cache's length, minus its left padding)
  at::Tensor row_starts = {};   ///< int32 [B, T]: first visible position of each token (packed documents), or undefined
  at::Tensor key_mask = {};     ///< bool [B, T]: false hides padding (encoders), or undefined
  at::Tensor token_types = {};  ///< int64 [B, T]; BERT's segments, undefined: 0
  layers::KvCache* cache = nullptr;          ///< appended to; no gradients then
  std::vector<at::Tensor>* trace = nullptr;  ///< receives the embeddings' output and each layer's
};

/// Parameters carry Hugging Face's names; spec::tensor_table(config()) lists exactly these.
class LanguageModel : public torch::nn::Module {
 public:
  explicit LanguageModel(spec::ModelConfig config)
      : config_(std::move(config)), memory_(static_cast<std::size_t>(config_.num_layers)) {}

  /// States that the output head reads, [B, T, hidden].
  virtual at::Tensor hidden(const ModelInputs& inputs) = 0;
  /// The head's matrix [vocab, hidden] (the embedding, when tied) and bias [vocab] (undefined where there is none).
  virtual at::Tensor head_weight() const = 0;
  virtual at::Tensor head_bias() const { return {}; }

  /// Hidden states [..., hidden] -> logits [..., vocab].
  at::Tensor logits(const at::Tensor& hidden) const;
  /// sum of -log p(labels[b, t] | ids[b, ..t]) / normalizer, fp32 scalar. labels int64 [B, T], already shifted:
  /// labels[b, t] is what position t predicts; negative labels don't count. normalizer 0: the number that count.
  at::Tensor loss(const ModelInputs& inputs, const at::Tensor& labels, double normalizer = 0);

  /// A cache for `batch` sequences of `capacity` tokens, in the parameters' type and device.
  std::unique_ptr<layers::KvCache> make_cache(std::int64_t batch, std::int64_t capacity) const;

  /// What each layer keeps for the backward pass of the forward passes from now on; one entry a layer, InputError for
  /// another number. It changes bytes and time; kInt8 alone changes gradients too.
  void set_memory(std::vector<layers::LayerMemory> memory);
  void set_memory(const layers::LayerMemory& all);
  const std::vector<layers::LayerMemory>& memory() const { return memory_; }

  const spec::ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const { return head_weight().scalar_type(); }
  at::Device device() const { return head_weight().device(); }
  /// All parameters by name, in tensor-table order where they are in the table.
  std::map<std::string, at::Tensor> parameter_map() const;

 protected:
  /// inputs.positions, or the default described there.
  at::Tensor positions_of(const ModelInputs& inputs) const;

 private:
  spec::ModelConfig config_;
  std::vector<layers::LayerMemory> memory_;
};

/// Builds the model of `config` with uninitialised fp32 parameters on the CPU.
std::shared_ptr<LanguageModel> make_model(const spec::ModelConfig& config);

/// Fills parameters for training from scratch: normal(0, initializer_range) matrices (residual projections of GPT-2 and
/// Llama scaled by 1/sqrt(2 layers)), ones and zeros for norms and biases. Method: GPT-2, Radford et al. 2019,
/// section 2.3.
void initialize_parameters(LanguageModel& model, std::uint64_t seed);

}  // namespace gantry::models
