// GGUF metadata to a ModelConfig. Sizes come from "<architecture>.*" keys; what GGUF leaves unsaid (tied embeddings,
// biases) from the presence of tensors.
#include <charconv>
#include <cmath>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/formats/gguf.h"
#include "gantry/spec/config.h"
#include "gantry/spec/config_internal.h"
#include "gantry/spec/rope.h"

namespace gantry::spec {
namespace {

using formats::GgufFile;

/// The keys of one architecture.
class Metadata {
 public:
  explicit Metadata(const GgufFile& file) : file_(file), prefix_(file.get_string("general.architecture") + ".") {}

  const GgufFile& file() const { return file_; }
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  std::int64_t integer(std::string_view name) const { return file_.get_i64(key(name)); }
  std::int64_t integer(std::string_view name, std::int64_t fallback) const {
    return file_.get_i64(key(name), fallback);
  }
  std::string text(std::string_view name, std::string fallback) const {
    return file_.get_string(key(name), std::move(fallback));
  }

  /// The decimal number that its fp32 form stands for: 1e-05, not 9.99999974e-06.
  double number(std::string_view name, double fallback) const {
    if (!has(name)) return fallback;
    const float value = file_.get_f32(key(name));
    GANTRY_CHECK(std::isfinite(value), "{}: '{}' is not a finite number", file_.source(), key(name));
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    double result = 0;
    std::from_chars(digits, end, result);
    return result;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

internal::FieldNames field_names(const Metadata& data, Family family) {
  internal::FieldNames names = internal::hf_names(family);
  names.vocab_size = data.has("vocab_size") ? data.key("vocab_size") : "the number of tokenizer.ggml.tokens";
  names.hidden_size = data.key("embedding_length");
  names.num_layers = data.key("block_count");
  names.num_heads = data.key("attention.head_count");
  names.num_kv_heads = data.key("attention.head_count_kv");
  names.head_dim = data.has("attention.key_length") ? data.key("attention.key_length")
                                                    : fmt::format("{} / {}", names.hidden_size, names.num_heads);
  names.intermediate_size = data.key("feed_forward_length");
  names.max_positions = data.key("context_length");
  names.type_vocab_size = data.key("token_type_count");
  names.norm_eps =
      data.key(family == Family::kLlama ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon");
  names.rope_theta = data.key("rope.freq_base");
  names.rope_factor = data.key(data.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear");
  return names;
}

bool has_tensor(const GgufFile& file, std::string_view name) { return file.find(name) != nullptr; }

std::int64_t vocabulary(const Metadata& data) {
  if (data.has("vocab_size")) return data.integer("vocab_size");
  constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
  GANTRY_CHECK(data.file().has(kTokens), "{}: neither '{}' nor '{}' gives the vocabulary size", data.file().source(),
               data.key("vocab_size"), kTokens);
  return static_cast<std::int64_t>(data.file().get_string_array(kTokens).size());
}

void read_token_ids(ModelConfig& config, const GgufFile& file) {
  const auto id = [&](std::string_view name) -> std::optional<std::int64_t> {
    const std::string key = "tokenizer.ggml." + std::string(name);
    if (!file.has(key)) return std::nullopt;
    return file.get_i64(key);
  };
  config.bos_token_id = id("bos_token_id");
  config.pad_token_id = id("padding_token_id");
  // A chat model may end a turn with another token than a document.
  for (const char* name : {"eos_token_id", "eot_token_id"}) {
    const auto end = id(name);
    if (end && (config.eos_token_ids.empty() || config.eos_token_ids[0] != *end)) config.eos_token_ids.push_back(*end);
  }
}

void read_sizes(ModelConfig& config, const Metadata& data) {
  config.vocab_size = vocabulary(data);
  config.hidden_size = data.integer("embedding_length");
  config.num_layers = data.integer("block_count");
  config.num_heads = data.integer("attention.head_count");
  config.num_kv_heads = data.integer("attention.head_count_kv", config.num_heads);
  const std::int64_t default_head = config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  config.head_dim = data.integer("attention.key_length", default_head);
  const std::int64_t value_dim = data.integer("attention.value_length", config.head_dim);
  GANTRY_CHECK(value_dim == config.head_dim, "{}: value heads of {} beside key heads of {} are not supported",
               data.file().source(), value_dim, config.head_dim);
  config.intermediate_size = data.integer("feed_forward_length");
  config.max_positions = data.integer("context_length");
}

RopeType rope_type(const std::string& name, std::string_view source) {
  if (name == "none") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "yarn") return RopeType::kYarn;
  base::fail_input("{}: rope scaling type '{}' is not one of none, linear, yarn", source, name);
}

// Llama 3.1 files carry no parameters, only the divisors that follow from them. The released models share all of them
// but the factor, which is the divisor of the lowest frequency.
void read_rope_divisors(ModelConfig& config, const Metadata& data) {
  const GgufFile& file = data.file();
  const formats::GgufTensor* tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) return;
  const std::string& source = file.source();
  GANTRY_CHECK(tensor->numel() * 2 == config.head_dim && tensor->numel() > 0,
               "{}: 'rope_freqs.weight' holds {} divisors, expected {}", source, tensor->numel(), config.head_dim / 2);
  std::vector<float> divisors(static_cast<std::size_t>(tensor->numel()));
  file.dequantize(*tensor, divisors);
  ModelConfig plain = config;
  plain.rope = {.theta = config.rope.theta};
  config.rope.type = RopeType::kLlama3;
  config.rope.factor = divisors.back();
  config.rope.original_max_positions = 8192;
  internal::FieldNames names = field_names(data, config.family);
  names.rope_factor = "the last divisor of 'rope_freqs.weight'";
  internal::validate_fields(config, source, names);
  const auto scaled = rope_frequencies(config, config.max_positions).inverse;
  const auto unscaled = rope_frequencies(plain, config.max_positions).inverse;
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    const float expected = unscaled[i] / scaled[i];
    GANTRY_CHECK(std::abs(divisors[i] - expected) <= 1e-3f * expected,
                 "{}: 'rope_freqs.weight' is not the Llama 3.1 scaling by {} (divisor {} is {}, expected {}); "
                 "other scalings by divisors are not supported",
                 source, config.rope.factor, i, divisors[i], expected);
  }
}

void read_rope(ModelConfig& config, const Metadata& data) {
  RopeConfig& rope = config.rope;
  const std::string& source = data.file().source();
  const std::int64_t rotated = data.integer("rope.dimension_count", config.head_dim);
  GANTRY_CHECK(rotated == config.head_dim, "{}: rotating {} of {} dimensions of a head is not supported", source,
               rotated, config.head_dim);
  rope.theta = data.number("rope.freq_base", rope.theta);
  // Files from before "rope.scaling.*" have a single linear factor.
  rope.factor = data.number("rope.scaling.factor", data.number("rope.scale_linear", 1.0));
  rope.type = rope_type(data.text("rope.scaling.type", rope.factor == 1.0 ? "none" : "linear"), source);
  if (rope.type == RopeType::kDefault) {
    rope.factor = 1.0;
  } else {
    rope.original_max_positions = data.integer("rope.scaling.original_context_length", 0);
  }
  if (rope.type == RopeType::kYarn) {
    rope.beta_fast = data.number("rope.scaling.yarn_beta_fast", rope.beta_fast);
    rope.beta_slow = data.number("rope.scaling.yarn_beta_slow", rope.beta_slow);
    // GGUF's factors multiply the one that follows from the scaling factor; Hugging Face's replaces it.
    const double extra =
        data.number("rope.scaling.attn_factor", 1.0) * data.number("rope.scaling.yarn_attn_factor", 1.0);
    if (extra != 1.0 && rope.factor > 0) rope.attention_factor = extra * (1.0 + 0.1 * std::log(rope.factor));
  }
  read_rope_divisors(config, data);
}

void read_llama(ModelConfig& config, const Metadata& data) {
  const GgufFile& file = data.file();
  config.family = Family::kLlama;
  config.norm_eps = data.number("attention.layer_norm_rms_epsilon", config.norm_eps);
  config.activation = Activation::kSilu;
  config.qkv_bias = has_tensor(file, "blk.0.attn_q.bias");
  config.output_bias = has_tensor(file, "blk.0.attn_output.bias");
  config.mlp_bias = has_tensor(file, "blk.0.ffn_down.bias");
  config.tied_embeddings = !has_tensor(file, "output.weight");
  GANTRY_CHECK(data.integer("expert_count", 0) == 0, "{}: mixture-of-experts models are not supported ({} experts)",
               file.source(), data.integer("expert_count", 0));
  const std::int64_t window = data.integer("attention.sliding_window", 0);
  GANTRY_CHECK(window <= 0 || window >= config.max_positions,
               "{}: sliding-window attention (window {}) is not supported", file.source(), window);
  read_rope(config, data);
}

void read_gpt2(ModelConfig& config, const Metadata& data) {
  config.family = Family::kGpt2;
  config.norm_eps = data.number("attention.layer_norm_epsilon", 1e-5);
  config.activation = Activation::kGeluTanh;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_embeddings = !has_tensor(data.file(), "output.weight");
}

void read_bert(ModelConfig& config, const Metadata& data) {
  config.family = Family::kBert;
  config.norm_eps = data.number("attention.layer_norm_epsilon", 1e-12);
  config.activation = Activation::kGeluErf;
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_embeddings = true;
  const auto rows = [&](std::string_view name) {
    const formats::GgufTensor& tensor = data.file().get(name);
    return tensor.shape.empty() ? 0 : tensor.shape[0];
  };
  config.type_vocab_size = data.integer("token_type_count", rows("token_types.weight"));
}

}  // namespace

ModelConfig config_from_gguf(const formats::GgufFile& file) {
  const Metadata data(file);
  ModelConfig config;
  config.model_type = file.get_string("general.architecture");
  const std::string& type = config.model_type;
  GANTRY_CHECK(type == "llama" || type == "qwen2" || type == "gpt2" || type == "bert",
               "{}: architecture '{}' is not supported; supported are llama (with mistral), qwen2, gpt2, bert",
               file.source(), type);
  read_sizes(config, data);
  read_token_ids(config, file);
  if (type == "gpt2") {
    read_gpt2(config, data);
  } else if (type == "bert") {
    read_bert(config, data);
  } else {
    read_llama(config, data);
  }
  internal::validate_fields(config, file.source(), field_names(data, config.family));
  return config;
}

}  // namespace gantry::spec
