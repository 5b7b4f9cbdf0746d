#include "gantry/models/language_model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "gantry/base/check.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/kernels/linear/linear.h"
#include "gantry/models/bert.h"
#include "gantry/models/gpt2.h"
#include "gantry/models/llama.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::models {

at::Tensor LanguageModel::logits(const at::Tensor& hidden) const {
  return kernels::linear(hidden, head_weight(), head_bias());
}

at::Tensor LanguageModel::loss(const ModelInputs& inputs, const at::Tensor& labels, double normalizer) {
  return kernels::linear_cross_entropy(hidden(inputs), head_weight(), head_bias(), labels, {.normalizer = normalizer});
}

void LanguageModel::set_memory(std::vector<layers::LayerMemory> memory) {
  GANTRY_CHECK(memory.size() == memory_.size(), "memory modes for {} layers do not fit a model of {}", memory.size(),
               memory_.size());
  memory_ = std::move(memory);
}

void LanguageModel::set_memory(const layers::LayerMemory& all) { memory_.assign(memory_.size(), all); }

std::unique_ptr<layers::KvCache> LanguageModel::make_cache(std::int64_t batch, std::int64_t capacity) const {
  return std::make_unique<layers::KvCache>(layers::KvCacheShape{.layers = config_.num_layers,
                                                                .batch = batch,
                                                                .capacity = capacity,
                                                                .kv_heads = config_.num_kv_heads,
                                                                .head_dim = config_.head_dim},
                                           at::TensorOptions().dtype(dtype()).device(device()));
}

std::map<std::string, at::Tensor> LanguageModel::parameter_map() const {
  std::map<std::string, at::Tensor> result;
  for (const auto& item : named_parameters()) result.emplace(item.key(), item.value());
  return result;
}

at::Tensor LanguageModel::positions_of(const ModelInputs& inputs) const {
  if (inputs.positions.defined()) return inputs.positions;
  const std::int64_t length = inputs.ids.size(1);
  const std::int64_t past = inputs.cache == nullptr ? 0 : inputs.cache->length();
  at::Tensor positions = at::arange(past, past + length, inputs.ids.options()).unsqueeze(0);
  if (inputs.cache != nullptr && inputs.cache->starts.defined()) {
    positions = (positions - inputs.cache->starts.unsqueeze(1)).clamp_min(0);
  }
  return positions.expand({inputs.ids.size(0), length}).contiguous();
}

std::shared_ptr<LanguageModel> make_model(const spec::ModelConfig& config) {
  switch (config.family) {
    case spec::Family::kLlama: return std::make_shared<Llama>(config);
    case spec::Family::kGpt2: return std::make_shared<Gpt2>(config);
    case spec::Family::kBert: return std::make_shared<Bert>(config);
  }
  GANTRY_UNREACHABLE();
}

void initialize_parameters(LanguageModel& model, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  auto parameters = model.parameter_map();
  const spec::ModelConfig& config = model.config();
  const double residual_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(config.num_layers));
  for (const spec::TensorSpec& tensor : spec::tensor_table(config)) {
    at::Tensor& parameter = parameters.at(tensor.name);
    if (tensor.shape.size() == 2) {
      const bool residual =
          config.is_decoder() && (tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight") ||
                                  tensor.name.ends_with("c_proj.weight"));
      const double deviation = config.initializer_range * (residual ? residual_scale : 1.0);
      // Drawn in fp32 whatever the parameter's type is, so that a seed means one model.
      parameter.copy_(at::normal(0.0, deviation, parameter.sizes(), generator));
    } else if (tensor.role == spec::TensorRole::kNorm && tensor.name.ends_with("weight")) {
      parameter.fill_(1.0);
    } else {
      parameter.zero_();
    }
  }
}

}  // namespace gantry::models
