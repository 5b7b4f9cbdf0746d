#pragma once
// Golden inputs and outputs of other implementations, in ../shared/data/llm.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "gantry/base/env.h"
#include "gantry/base/json.h"
#include "gantry/formats/safetensors.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/mapped.h"

namespace gantry::models::testing {

inline std::optional<std::filesystem::path> golden_dir() {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data || !std::filesystem::exists(*data / "llm")) return std::nullopt;
  return *data / "llm";
}

#define GANTRY_GOLDEN_DIR(name)                                                                        \
  const auto name##_found = ::gantry::models::testing::golden_dir();                                   \
  if (!name##_found) GTEST_SKIP() << "no golden data: ../shared/data/llm is absent (set GANTRY_DATA)"; \
  const std::filesystem::path name = *name##_found

/// GANTRY_SMOLLM2_GGUF, or where `make model` puts it.
inline std::optional<std::filesystem::path> smollm2_gguf() {
  const auto named = base::env("GANTRY_SMOLLM2_GGUF");
  const std::filesystem::path path =
      named ? std::filesystem::path(*named)
            : std::filesystem::path(GANTRY_SOURCE_DIR) / "build/model/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

#define GANTRY_SMOLLM2(name)                                                                         \
  const auto name##_found = ::gantry::models::testing::smollm2_gguf();                               \
  if (!name##_found) GTEST_SKIP() << "no SmolLM2 file: run `make model` or set GANTRY_SMOLLM2_GGUF"; \
  const std::filesystem::path name = *name##_found

class GoldenTensors {
 public:
  explicit GoldenTensors(const std::filesystem::path& file)
      : file_(std::make_shared<formats::SafetensorsModel>(formats::SafetensorsModel::open(file))) {}
  bool has(const std::string& name) const { return file_->find(name) != nullptr; }
  at::Tensor get(const std::string& name) const {
    const auto& info = file_->get(name);
    return tensor::tensor_over(file_->data(info), info.shape, tensor::to_scalar_type(info.dtype), file_).clone();
  }

 private:
  std::shared_ptr<formats::SafetensorsModel> file_;
};

/// Largest difference, relative to the expected tensor's largest entry.
inline double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const double scale = std::max(1e-12, expected.abs().max().item<double>());
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() / scale;
}

inline std::vector<base::Json> read_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<base::Json> rows;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) rows.push_back(base::Json::parse(line));
  }
  return rows;
}

}  // namespace gantry::models::testing
