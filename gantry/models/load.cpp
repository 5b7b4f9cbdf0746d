#include "gantry/models/load.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/formats/gguf.h"
#include "gantry/formats/safetensors.h"
#include "gantry/kernels/finite/finite.h"
#include "gantry/models/weight_source.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/huge_pages.h"

namespace gantry::models {

std::filesystem::path resolve_model_path(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  GANTRY_CHECK(fs::exists(path), "{}: no such model; give a folder with config.json and safetensors, or a .gguf file",
               path.string());
  if (!fs::is_directory(path)) {
    GANTRY_CHECK(path.extension() == ".gguf", "{}: expected a model folder or a .gguf file", path.string());
    return path;
  }
  if (fs::exists(path / "config.json")) return path;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path());
  }
  GANTRY_CHECK(found.size() == 1,
               "{}: expected config.json or exactly one .gguf file in this folder, found {} .gguf files", path.string(),
               found.size());
  return found[0];
}

spec::ModelConfig load_config(const std::filesystem::path& path) {
  const auto resolved = resolve_model_path(path);
  if (resolved.extension() == ".gguf") return spec::config_from_gguf(formats::GgufFile::open(resolved));
  return spec::config_from_hf(resolved);
}

std::shared_ptr<LanguageModel> load_model(const std::filesystem::path& path, const LoadOptions& options) {
  const auto source = open_weights(path);
  const auto table = spec::tensor_table(source->config());
  source->check(table);
  auto model = make_model(source->config());
  auto parameters = model->parameter_map();
  GANTRY_ASSERT(parameters.size() == table.size());
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values;
  for (const spec::TensorSpec& spec : table) {
    const at::Tensor value = source->read(spec, options.dtype);
    GANTRY_CHECK(!options.check_finite || kernels::all_finite(value),
                 "{}: tensor '{}' holds NaN or infinity; the file is damaged or training diverged", path.string(),
                 spec.name);
    values.push_back(value.to(options.device));
  }
  if (options.resident && options.device.is_cpu()) values = tensor::copy_to_huge_pages(values);
  for (std::size_t i = 0; i < table.size(); ++i) parameters.at(table[i].name).set_data(values[i]);
  model->eval();
  return model;
}

void save_model(const LanguageModel& model, const text::Tokenizer* tokenizer, const std::filesystem::path& dir,
                std::uint64_t max_shard_bytes) {
  base::make_directories(dir);
  const auto parameters = model.parameter_map();
  std::vector<formats::TensorToWrite> tensors;
  std::vector<at::Tensor> alive;
  for (const spec::TensorSpec& spec : spec::tensor_table(model.config())) {
    const at::Tensor value = parameters.at(spec.name).detach().cpu().contiguous();
    alive.push_back(value);
    tensors.push_back({.name = spec.name,
                       .dtype = tensor::to_file_dtype(value.scalar_type()),
                       .shape = spec.shape,
                       .data = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
  }
  formats::write_safetensors_sharded(dir, tensors, max_shard_bytes, {{"format", "pt"}});
  const bool bf16 = model.dtype() == at::kBFloat16;
  const char* dtype = bf16 ? "bfloat16" : model.dtype() == at::kHalf ? "float16" : "float32";
  base::write_file_atomically(dir / "config.json", spec::config_to_hf_text(model.config(), dtype));
  if (tokenizer != nullptr) text::save_tokenizer(*tokenizer, dir);
}

}  // namespace gantry::models
