#include "gantry/train/checkpoint.h"

#include <torch/torch.h>

#include <algorithm>
#include <charconv>

#include "gantry/base/file.h"
#include "gantry/formats/safetensors.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/mapped.h"

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

void write_optimizer(const std::filesystem::path& file, const FlatParameters& parameters, const FlatAdamw& optimizer) {
  std::vector<std::pair<std::string, at::Tensor>> named{{"first", optimizer.first()},
                                                        {"second", optimizer.second()},
                                                        {"values", parameters.values()},
                                                        {"generator", generator_state()}};
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
  const auto file = std::make_shared<formats::SafetensorsModel>(
      formats::SafetensorsModel::open(checkpoint / "optimizer.safetensors"));
  const auto read = [&](const char* name) {
    const formats::TensorInfo& info = file->get(name);
    return tensor::tensor_over(file->data(info), info.shape, tensor::to_scalar_type(info.dtype), file);
  };
  parameters.restore(read("values"), parameters.remainder().defined() ? read("remainder") : at::Tensor());
  const auto steps = file->metadata().find("steps");
  GANTRY_CHECK(steps != file->metadata().end(), "{}: no step count in optimizer.safetensors", checkpoint.string());
  std::int64_t taken = 0;
  std::from_chars(steps->second.data(), steps->second.data() + steps->second.size(), taken);
  optimizer.restore(read("first"), read("second"), taken);
  restore_generator(read("generator").clone());
  return base::read_json_file(checkpoint / "trainer.json");
}

}  // namespace gantry::train
