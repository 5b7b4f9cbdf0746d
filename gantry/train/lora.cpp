#include "gantry/train/lora.h"

#include <ATen/ATen.h>

#include <set>

#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/formats/safetensors.h"
#include "gantry/layers/linear.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"

namespace gantry::train {
namespace {

// Projections inside blocks, by module path, in tensor-table order.
std::vector<std::pair<std::string, layers::LinearImpl*>> block_projections(models::LanguageModel& model) {
  std::map<std::string, layers::LinearImpl*> by_path;
  for (const auto& item : model.named_modules()) {
    if (auto* linear = dynamic_cast<layers::LinearImpl*>(item.value().get())) by_path[item.key()] = linear;
  }
  std::vector<std::pair<std::string, layers::LinearImpl*>> result;
  for (const spec::TensorSpec& tensor : spec::tensor_table(model.config())) {
    if (tensor.layer < 0 || tensor.shape.size() != 2) continue;
    const std::string path = tensor.name.substr(0, tensor.name.size() - std::string_view(".weight").size());
    const auto found = by_path.find(path);
    if (found != by_path.end()) result.emplace_back(*found);
  }
  return result;
}

}  // namespace

std::vector<NamedParameter> attach_lora(models::LanguageModel& model, const LoraOptions& options, std::uint64_t seed) {
  for (auto& parameter : model.parameters()) parameter.set_requires_grad(false);
  at::manual_seed(seed);
  std::vector<NamedParameter> result;
  for (auto& [path, linear] : block_projections(model)) {
    linear->add_lora(options.rank, options.alpha);
    result.push_back({path + ".lora_A.weight", linear->lora->a(), true});
    result.push_back({path + ".lora_B.weight", linear->lora->b(), true});
  }
  return result;
}

void make_writable(models::LanguageModel& model) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : model.parameters()) {
    if (!parameter.requires_grad()) parameter.set_data(parameter.detach().clone());
  }
}

void merge_lora(models::LanguageModel& model) {
  for (auto& [path, linear] : block_projections(model)) linear->merge_lora();
}

void save_adapter(const models::LanguageModel& model, const LoraOptions& options, const std::string& base_model,
                  const std::filesystem::path& dir) {
  base::make_directories(dir);
  std::vector<formats::TensorToWrite> tensors;
  std::vector<at::Tensor> alive;
  std::set<std::string> targets;
  for (const auto& item : model.named_parameters()) {
    const auto at_lora = item.key().find(".lora.");
    if (at_lora == std::string::npos) continue;
    const std::string module = item.key().substr(0, at_lora);
    targets.insert(module.substr(module.rfind('.') + 1));
    const at::Tensor value = item.value().detach().cpu().contiguous();
    alive.push_back(value);
    tensors.push_back({.name = kAdapterPrefix + module + item.key().substr(at_lora + 5),
                       .dtype = tensor::to_file_dtype(value.scalar_type()),
                       .shape = value.sizes().vec(),
                       .data = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
  }
  formats::write_safetensors(dir / kAdapterFile, tensors, {{"format", "pt"}});
  base::OrderedJson config;
  config["peft_type"] = "LORA";
  config["task_type"] = model.config().is_decoder() ? "CAUSAL_LM" : "FEATURE_EXTRACTION";
  config["base_model_name_or_path"] = base_model;
  config["r"] = options.rank;
  config["lora_alpha"] = options.alpha;
  config["lora_dropout"] = 0.0;
  config["bias"] = "none";
  config["fan_in_fan_out"] = model.config().family == spec::Family::kGpt2;
  config["target_modules"] = targets;
  config["inference_mode"] = true;
  base::write_file_atomically(dir / "adapter_config.json", config.dump(2) + "\n");
}

}  // namespace gantry::train
