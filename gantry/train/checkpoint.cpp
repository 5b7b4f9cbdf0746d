#include "gantry/train/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>

#include "gantry/base/file.h"
#include "gantry/formats/safetensors.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/mapped.h"
#include "gantry/train/lora.h"

namespace gantry::train {
namespace {

constexpr const char* kPrefix = "checkpoint-";

at::Tensor generator_state() {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

void restore_generator(const at::Tensor& state) {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_state(state);
}

/// A safetensors file as tensors over its mapped bytes.
class TensorFile {
 public:
  explicit TensorFile(const std::filesystem::path& path)
      : file_(std::make_shared<formats::SafetensorsModel>(formats::SafetensorsModel::open(path))) {}

  bool has(const std::string& name) const { return file_->find(name) != nullptr; }
  const formats::SafetensorsMetadata& metadata() const { return file_->metadata(); }
  at::Tensor get(const std::string& name) const {
    const formats::TensorInfo& info = file_->get(name);
    return tensor::tensor_over(file_->data(info), info.shape, tensor::to_scalar_type(info.dtype), file_);
  }

 private:
  std::shared_ptr<formats::SafetensorsModel> file_;
};

// The values of the trained parameters, from the model or the low-rank updates in the checkpoint.
std::vector<at::Tensor> model_values(const std::filesystem::path& checkpoint, const FlatParameters& parameters) {
  const bool adapter = std::filesystem::exists(checkpoint / kAdapterFile);
  const TensorFile file(adapter ? checkpoint / kAdapterFile : checkpoint);
  std::vector<at::Tensor> values;
  for (const NamedParameter& item : parameters.parameters()) {
    values.push_back(file.get(adapter ? kAdapterPrefix + item.name : item.name));
  }
  return values;
}

// Checkpoints of gantry before the model part was read back: all values in one flat tensor.
std::vector<at::Tensor> flat_values(const at::Tensor& flat, const FlatParameters& parameters) {
  GANTRY_CHECK(flat.numel() == parameters.size(), "checkpoint: {} values do not fit the model's {} trained parameters",
               flat.numel(), parameters.size());
  std::vector<at::Tensor> values;
  std::int64_t offset = 0;
  for (const NamedParameter& item : parameters.parameters()) {
    values.push_back(flat.narrow(0, offset, item.parameter.numel()));
    offset += item.parameter.numel();
  }
  return values;
}

// A checkpoint that could not be read back is an error now, not at the resume.
void check_model_part(const std::filesystem::path& checkpoint, const FlatParameters& parameters) {
  const auto values = model_values(checkpoint, parameters);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const NamedParameter& item = parameters.parameters()[i];
    if (values[i].sizes() == item.parameter.sizes() && values[i].scalar_type() == item.parameter.scalar_type())
      continue;
    base::fail("{}: the model was written without the trained values of '{}'", checkpoint.string(), item.name);
  }
}

void write_optimizer(const std::filesystem::path& file, const FlatParameters& parameters, const FlatAdamw& optimizer) {
  std::vector<std::pair<std::string, at::Tensor>> named{
      {"first", optimizer.first()}, {"second", optimizer.second()}, {"generator", generator_state()}};
  if (parameters.remainder().defined()) named.emplace_back("remainder", parameters.remainder());
  std::vector<formats::TensorToWrite> tensors;
  for (const auto& [name, value] : named) {
    tensors.push_back({.name = name,
                       .dtype = tensor::to_file_dtype(value.scalar_type()),
                       .shape = value.sizes().vec(),
                       .data = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
  }
  formats::write_safetensors(file, tensors, {{"steps", std::to_string(optimizer.steps_taken())}});
}

}  // namespace

std::vector<std::pair<std::int64_t, std::filesystem::path>> list_checkpoints(const std::filesystem::path& run) {
  std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
  if (!std::filesystem::is_directory(run)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(run)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || !name.starts_with(kPrefix)) continue;
    const std::string digits = name.substr(std::string_view(kPrefix).size());
    std::int64_t step = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (error == std::errc() && end == digits.data() + digits.size()) found.emplace_back(step, entry.path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

std::filesystem::path write_checkpoint(const std::filesystem::path& run, std::int64_t step, std::int64_t keep,
                                       const FlatParameters& parameters, const FlatAdamw& optimizer,
                                       const base::OrderedJson& state,
                                       const std::function<void(const std::filesystem::path&)>& write_model) {
  namespace fs = std::filesystem;
  const fs::path target = run / fmt::format("{}{}", kPrefix, step);
  const fs::path temporary = run / fmt::format(".{}{}.tmp", kPrefix, step);
  fs::remove_all(temporary);
  base::make_directories(temporary);
  try {
    write_model(temporary);
    check_model_part(temporary, parameters);
    write_optimizer(temporary / "optimizer.safetensors", parameters, optimizer);
    base::write_file_atomically(temporary / "trainer.json", state.dump(2) + "\n");
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  fs::remove_all(target);
  fs::rename(temporary, target);
  const auto all = list_checkpoints(run);
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(1, keep)); i < all.size(); ++i) {
    std::error_code ignored;
    fs::remove_all(all[i].second, ignored);
  }
  return target;
}

base::Json read_checkpoint(const std::filesystem::path& checkpoint, FlatParameters& parameters, FlatAdamw& optimizer) {
  const TensorFile file(checkpoint / "optimizer.safetensors");
  const auto steps = file.metadata().find("steps");
  GANTRY_CHECK(steps != file.metadata().end(), "{}: no step count in optimizer.safetensors", checkpoint.string());
  std::int64_t taken = 0;
  std::from_chars(steps->second.data(), steps->second.data() + steps->second.size(), taken);
  parameters.restore(
      file.has("values") ? flat_values(file.get("values"), parameters) : model_values(checkpoint, parameters),
      parameters.remainder().defined() ? file.get("remainder") : at::Tensor());
  optimizer.restore(file.get("first"), file.get("second"), taken);
  restore_generator(file.get("generator").clone());
  return base::read_json_file(checkpoint / "trainer.json");
}

}  // namespace gantry::train
