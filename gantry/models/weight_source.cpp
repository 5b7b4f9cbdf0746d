#include "gantry/models/weight_source.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <set>

#include "gantry/base/check.h"
#include "gantry/formats/gguf.h"
#include "gantry/formats/safetensors.h"
#include "gantry/models/load.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/mapped.h"

namespace gantry::models {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void check_shape(const std::string& source, const std::string& name, const std::vector<std::int64_t>& found,
                 const std::vector<std::int64_t>& expected) {
  GANTRY_CHECK(found == expected, "{}: tensor '{}' has shape {}, but the configuration asks for {}", source, name,
               shape_text(found), shape_text(expected));
}

// Names up to ten of the unknown tensors.
void refuse_leftovers(const std::string& source, const std::vector<std::string>& names) {
  if (names.empty()) return;
  const std::size_t shown = std::min<std::size_t>(names.size(), 10);
  base::fail_input("{}: {} tensors do not belong to a model of this configuration: {}{}", source, names.size(),
                   fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                   names.size() > shown ? ", ..." : "");
}

class SafetensorsSource : public WeightSource {
 public:
  explicit SafetensorsSource(const std::filesystem::path& dir)
      : file_(std::make_shared<formats::SafetensorsModel>(formats::SafetensorsModel::open(dir))),
        config_(spec::config_from_hf(dir)),
        source_(dir.string()) {
    // The released GPT-2 and BERT files leave out the model's own prefix.
    const std::string prefix = config_.family == spec::Family::kGpt2   ? "transformer."
                               : config_.family == spec::Family::kBert ? config_.model_type + "."
                                                                       : "model.";
    bool prefixed = false;
    for (const auto& tensor : file_->tensors()) prefixed = prefixed || tensor.name.starts_with(prefix);
    if (!prefixed) missing_prefix_ = prefix;
  }

  const spec::ModelConfig& config() const override { return config_; }

  at::Tensor read(const spec::TensorSpec& spec, std::optional<at::ScalarType> dtype) const override {
    const formats::TensorInfo& info = checked(spec);
    const at::ScalarType stored = tensor::to_scalar_type(info.dtype);
    return tensor::tensor_over(file_->data(info), info.shape, stored, file_).to(dtype.value_or(stored));
  }

  void check(const std::vector<spec::TensorSpec>& table) const override {
    std::set<std::string> known;
    for (const auto& spec : table) {
      checked(spec);
      known.insert(spec.name);
    }
    std::vector<std::string> unknown;
    for (const auto& tensor : file_->tensors()) {
      const std::string full = missing_prefix_ + tensor.name;
      if (!known.contains(tensor.name) && !known.contains(renamed(full)) && !known.contains(renamed(tensor.name)) &&
          !spec::is_ignorable_tensor(config_, tensor.name)) {
        unknown.push_back(tensor.name);
      }
    }
    refuse_leftovers(source_, unknown);
  }

 private:
  const formats::TensorInfo& checked(const spec::TensorSpec& spec) const {
    const formats::TensorInfo* info = find(spec.name);
    GANTRY_CHECK(info != nullptr, "{}: tensor '{}' is missing; the file does not fit its config.json", source_,
                 spec.name);
    check_shape(source_, spec.name, info->shape, spec.shape);
    GANTRY_CHECK(at::isFloatingType(tensor::to_scalar_type(info->dtype)),
                 "{}: tensor '{}' holds {}, expected floating-point weights", source_, spec.name,
                 formats::dtype_name(info->dtype));
    return *info;
  }

  // Old checkpoints call LayerNorm's parameters gamma and beta.
  static std::string renamed(std::string name) {
    if (name.ends_with("LayerNorm.gamma")) name.replace(name.size() - 5, 5, "weight");
    if (name.ends_with("LayerNorm.beta")) name.replace(name.size() - 4, 4, "bias");
    return name;
  }

  const formats::TensorInfo* find(const std::string& name) const {
    std::vector<std::string> candidates{name};
    if (!missing_prefix_.empty() && name.starts_with(missing_prefix_)) {
      candidates.push_back(name.substr(missing_prefix_.size()));
    }
    if (name.ends_with("LayerNorm.weight")) candidates.push_back(name.substr(0, name.size() - 6) + "gamma");
    if (name.ends_with("LayerNorm.bias")) candidates.push_back(name.substr(0, name.size() - 4) + "beta");
    for (const auto& candidate : candidates) {
      if (const auto* info = file_->find(candidate)) return info;
    }
    return nullptr;
  }

  std::shared_ptr<formats::SafetensorsModel> file_;
  spec::ModelConfig config_;
  std::string source_;
  std::string missing_prefix_;
};

class GgufSource : public WeightSource {
 public:
  explicit GgufSource(const std::filesystem::path& file)
      : file_(std::make_shared<formats::GgufFile>(formats::GgufFile::open(file))),
        config_(spec::config_from_gguf(*file_)) {}

  const spec::ModelConfig& config() const override { return config_; }

  at::Tensor read(const spec::TensorSpec& spec, std::optional<at::ScalarType> dtype) const override {
    const formats::GgufTensor& info = checked(spec);
    at::Tensor values = at::empty(info.shape, at::kFloat);
    file_->dequantize(info, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    if (spec.gguf_transform == spec::GgufTransform::kTranspose) values = values.t().contiguous();
    if (spec.gguf_transform == spec::GgufTransform::kUnpermuteRope) values = unpermuted(values, spec);
    return values.to(dtype.value_or(info.type == formats::GgufType::kF32 && all_fp32() ? at::kFloat : at::kBFloat16));
  }

  void check(const std::vector<spec::TensorSpec>& table) const override {
    std::set<std::string> known{"rope_freqs.weight"};
    for (const auto& spec : table) {
      checked(spec);
      known.insert(spec.gguf_name);
    }
    std::vector<std::string> unknown;
    for (const auto& tensor : file_->tensors()) {
      if (!known.contains(tensor.name)) unknown.push_back(tensor.name);
    }
    refuse_leftovers(file_->source(), unknown);
  }

 private:
  const formats::GgufTensor& checked(const spec::TensorSpec& spec) const {
    GANTRY_CHECK(!spec.gguf_name.empty(), "{}: the model needs '{}', for which GGUF files have no tensor",
                 file_->source(), spec.name);
    const formats::GgufTensor* info = file_->find(spec.gguf_name);
    GANTRY_CHECK(info != nullptr, "{}: tensor '{}' ({}) is missing", file_->source(), spec.gguf_name, spec.name);
    std::vector<std::int64_t> shape = spec.shape;
    if (spec.gguf_transform == spec::GgufTransform::kTranspose) std::swap(shape[0], shape[1]);
    check_shape(file_->source(), spec.gguf_name, info->shape, shape);
    return *info;
  }

  // A GGUF file keeps norms in fp32 beside 16-bit or quantised matrices; the model then takes one type, bf16.
  bool all_fp32() const {
    for (const auto& tensor : file_->tensors()) {
      if (tensor.type != formats::GgufType::kF32) return false;
    }
    return true;
  }

  // Rows of a head are stored as (pair, member); Hugging Face has (member, pair).
  at::Tensor unpermuted(const at::Tensor& values, const spec::TensorSpec& spec) const {
    const std::int64_t dim = config_.head_dim, heads = spec.shape[0] / dim;
    const std::int64_t columns = values.numel() / spec.shape[0];
    return values.view({heads, dim / 2, 2, columns}).transpose(1, 2).reshape(spec.shape).contiguous();
  }

  std::shared_ptr<formats::GgufFile> file_;
  spec::ModelConfig config_;
};

}  // namespace

std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& path) {
  const auto resolved = resolve_model_path(path);
  if (resolved.extension() == ".gguf") return std::make_unique<GgufSource>(resolved);
  return std::make_unique<SafetensorsSource>(resolved);
}

}  // namespace gantry::models
