// config.json in Hugging Face's layout, read and written. Both the older top-level rope fields and the newer
// `rope_parameters` object are understood; unknown fields are ignored, as every reader of this file does.
#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/spec/config.h"

namespace gantry::spec {
namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

void read_token_ids(ModelConfig& config, const Json& json, std::string_view source) {
  GANTRY_CHECK(json.is_object(), "{}: expected an object, found {}", source, json.type_name());
  const auto optional_id = [&](const char* key) -> std::optional<std::int64_t> {
    if (!json.contains(key) || !json[key].is_number_integer()) return std::nullopt;
    return json_get<std::int64_t>(json, key, source);
  };
  if (const auto bos = optional_id("bos_token_id")) config.bos_token_id = bos;
  if (const auto pad = optional_id("pad_token_id")) config.pad_token_id = pad;
  const auto eos = json.find("eos_token_id");
  if (eos == json.end() || eos->is_null()) return;
  config.eos_token_ids = eos->is_array() ? json_get<std::vector<std::int64_t>>(json, "eos_token_id", source)
                                         : std::vector{json_get<std::int64_t>(json, "eos_token_id", source)};
}

RopeType parse_rope_type(const std::string& name, std::string_view source) {
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "dynamic") return RopeType::kDynamic;
  if (name == "yarn") return RopeType::kYarn;
  if (name == "llama3") return RopeType::kLlama3;
  base::fail_input("{}: rope type '{}' is not one of default, linear, dynamic, yarn, llama3", source, name);
}

void read_yarn(RopeConfig& rope, const Json& scaling, std::string_view source) {
  rope.beta_fast = json_get_or(scaling, "beta_fast", rope.beta_fast, source);
  rope.beta_slow = json_get_or(scaling, "beta_slow", rope.beta_slow, source);
  rope.mscale = json_get_or(scaling, "mscale", rope.mscale, source);
  rope.mscale_all_dim = json_get_or(scaling, "mscale_all_dim", rope.mscale_all_dim, source);
  rope.attention_factor = json_get_or(scaling, "attention_factor", rope.attention_factor, source);
  rope.truncate = json_get_or(scaling, "truncate", rope.truncate, source);
}

// Fields of other types are left alone, so that what is read equals what was written.
RopeConfig read_rope(const Json& json, std::int64_t max_positions, std::string_view source) {
  RopeConfig rope;
  rope.theta = json_get_or(json, "rope_theta", rope.theta, source);
  const auto newer = json.find("rope_parameters");
  const char* key = newer != json.end() && !newer->is_null() ? "rope_parameters" : "rope_scaling";
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return rope;
  const Json& scaling = *found;
  GANTRY_CHECK(scaling.is_object(), "{}: '{}' must be an object, found {}", source, key, scaling.type_name());
  const auto old_type = json_get_or<std::string>(scaling, "type", "default", source);
  rope.type = parse_rope_type(json_get_or<std::string>(scaling, "rope_type", old_type, source), source);
  rope.theta = json_get_or(scaling, "rope_theta", rope.theta, source);
  const double rotated = json_get_or(scaling, "partial_rotary_factor", 1.0, source);
  GANTRY_CHECK(rotated == 1.0, "{}: partial_rotary_factor {} is not supported, only 1", source, rotated);
  if (rope.type == RopeType::kDefault) return rope;
  const auto original = json_get_or<std::int64_t>(json, "original_max_position_embeddings", 0, source);
  rope.original_max_positions = json_get_or(scaling, "original_max_position_embeddings", original, source);
  // A yarn scaling without a factor means the ratio of the two lengths.
  const bool implied = rope.type == RopeType::kYarn && rope.original_max_positions > 0;
  const double ratio = static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions);
  rope.factor = json_get_or(scaling, "factor", implied ? ratio : 1.0, source);
  if (rope.type == RopeType::kYarn) read_yarn(rope, scaling, source);
  if (rope.type == RopeType::kLlama3) {
    rope.low_freq_factor = json_get_or(scaling, "low_freq_factor", rope.low_freq_factor, source);
    rope.high_freq_factor = json_get_or(scaling, "high_freq_factor", rope.high_freq_factor, source);
  }
  return rope;
}

void check_sliding_window(const ModelConfig& config, const Json& json, std::string_view source) {
  // Qwen2 names a window that is off unless asked for; Mistral's is on.
  if (!json_get_or(json, "use_sliding_window", config.model_type != "qwen2", source)) return;
  const auto window = json_get_or<std::int64_t>(json, "sliding_window", config.max_positions, source);
  GANTRY_CHECK(window >= config.max_positions, "{}: sliding-window attention (window {}) is not supported", source,
               window);
}

void read_llama(ModelConfig& config, const Json& json, std::string_view source) {
  config.family = Family::kLlama;
  config.hidden_size = json_get<std::int64_t>(json, "hidden_size", source);
  config.num_layers = json_get<std::int64_t>(json, "num_hidden_layers", source);
  config.num_heads = json_get<std::int64_t>(json, "num_attention_heads", source);
  config.num_kv_heads = json_get_or(json, "num_key_value_heads", config.num_heads, source);
  const std::int64_t default_head = config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  config.head_dim = json_get_or(json, "head_dim", default_head, source);
  config.intermediate_size = json_get<std::int64_t>(json, "intermediate_size", source);
  config.max_positions = json_get_or<std::int64_t>(json, "max_position_embeddings", 2048, source);
  check_sliding_window(config, json, source);
  config.norm_eps = json_get_or(json, "rms_norm_eps", 1e-6, source);
  config.activation = parse_activation(json_get_or<std::string>(json, "hidden_act", "silu", source), source);
  config.rope = read_rope(json, config.max_positions, source);
  const bool qwen2 = config.model_type == "qwen2";
  config.qkv_bias = json_get_or(json, "attention_bias", qwen2, source);
  config.output_bias = !qwen2 && config.qkv_bias;
  config.mlp_bias = json_get_or(json, "mlp_bias", false, source);
  config.tied_embeddings = json_get_or(json, "tie_word_embeddings", false, source);
  config.attention_dropout = json_get_or(json, "attention_dropout", 0.0, source);
}

void read_gpt2(ModelConfig& config, const Json& json, std::string_view source) {
  config.family = Family::kGpt2;
  config.hidden_size = json_get<std::int64_t>(json, "n_embd", source);
  config.num_layers = json_get<std::int64_t>(json, "n_layer", source);
  config.num_heads = json_get<std::int64_t>(json, "n_head", source);
  config.num_kv_heads = config.num_heads;
  config.head_dim = config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  config.intermediate_size = json_get_or<std::int64_t>(json, "n_inner", 4 * config.hidden_size, source);
  config.max_positions = json_get_or<std::int64_t>(json, "n_positions", 1024, source);
  config.norm_eps = json_get_or(json, "layer_norm_epsilon", 1e-5, source);
  config.activation =
      parse_activation(json_get_or<std::string>(json, "activation_function", "gelu_new", source), source);
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_embeddings = json_get_or(json, "tie_word_embeddings", true, source);
  config.dropout = json_get_or(json, "resid_pdrop", 0.1, source);
  config.attention_dropout = json_get_or(json, "attn_pdrop", 0.1, source);
  GANTRY_CHECK(json_get_or(json, "scale_attn_weights", true, source) &&
                   !json_get_or(json, "scale_attn_by_inverse_layer_idx", false, source),
               "{}: GPT-2 with unscaled or layer-scaled attention is not supported", source);
}

void read_bert(ModelConfig& config, const Json& json, std::string_view source) {
  config.family = Family::kBert;
  config.hidden_size = json_get<std::int64_t>(json, "hidden_size", source);
  config.num_layers = json_get<std::int64_t>(json, "num_hidden_layers", source);
  config.num_heads = json_get<std::int64_t>(json, "num_attention_heads", source);
  config.num_kv_heads = config.num_heads;
  config.head_dim = config.num_heads > 0 ? config.hidden_size / config.num_heads : 0;
  config.intermediate_size = json_get<std::int64_t>(json, "intermediate_size", source);
  config.max_positions = json_get_or<std::int64_t>(json, "max_position_embeddings", 512, source);
  config.type_vocab_size = json_get_or<std::int64_t>(json, "type_vocab_size", 2, source);
  config.norm_eps = json_get_or(json, "layer_norm_eps", 1e-12, source);
  config.activation = parse_activation(json_get_or<std::string>(json, "hidden_act", "gelu", source), source);
  config.qkv_bias = config.output_bias = config.mlp_bias = true;
  config.tied_embeddings = json_get_or(json, "tie_word_embeddings", true, source);
  config.dropout = json_get_or(json, "hidden_dropout_prob", 0.1, source);
  config.attention_dropout = json_get_or(json, "attention_probs_dropout_prob", 0.1, source);
  const auto positions = json_get_or<std::string>(json, "position_embedding_type", "absolute", source);
  GANTRY_CHECK(positions == "absolute", "{}: position_embedding_type '{}' is not supported, only 'absolute'", source,
               positions);
  GANTRY_CHECK(!json_get_or(json, "is_decoder", false, source), "{}: BERT as a decoder is not supported", source);
}

ModelConfig from_json(const Json& json, std::string_view source) {
  ModelConfig config;
  config.model_type = json_get<std::string>(json, "model_type", source);
  config.vocab_size = json_get<std::int64_t>(json, "vocab_size", source);
  config.initializer_range = json_get_or(json, "initializer_range", 0.02, source);
  read_token_ids(config, json, source);
  const std::string& type = config.model_type;
  if (type == "llama" || type == "mistral" || type == "qwen2") {
    read_llama(config, json, source);
  } else if (type == "gpt2") {
    read_gpt2(config, json, source);
  } else if (type == "bert" || type == "roberta") {
    read_bert(config, json, source);
    if (type == "roberta") {
      const std::int64_t pad = config.pad_token_id.value_or(1);
      GANTRY_CHECK(pad >= 0 && pad < config.max_positions && pad + 1 < config.max_positions,
                   "{}: pad_token_id {} leaves no position of {} (RoBERTa's start behind it)", source, pad,
                   config.max_positions);
      config.position_offset = pad + 1;
    }
  } else {
    base::fail_input("{}: model_type '{}' is not supported; supported are llama, mistral, qwen2, gpt2, bert, roberta",
                     source, type);
  }
  validate(config, source);
  return config;
}

}  // namespace

ModelConfig config_from_hf_text(std::string_view json_text, std::string_view source) {
  return from_json(base::parse_json(json_text, source), source);
}

ModelConfig config_from_hf(const std::filesystem::path& dir_or_file) {
  const bool is_dir = std::filesystem::is_directory(dir_or_file);
  const auto file = is_dir ? dir_or_file / "config.json" : dir_or_file;
  constexpr std::uint64_t kMaxConfigBytes = 16u << 20;
  ModelConfig config = from_json(base::read_json_file(file, kMaxConfigBytes), file.string());
  const auto generation = file.parent_path() / "generation_config.json";
  if (is_dir && std::filesystem::exists(generation)) {
    read_token_ids(config, base::read_json_file(generation, kMaxConfigBytes), generation.string());
    validate(config, generation.string());
  }
  return config;
}

namespace {

base::OrderedJson rope_to_json(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  base::OrderedJson json;
  switch (rope.type) {
    case RopeType::kDefault: json["rope_type"] = "default"; break;
    case RopeType::kLinear: json["rope_type"] = "linear"; break;
    case RopeType::kDynamic: json["rope_type"] = "dynamic"; break;
    case RopeType::kYarn: json["rope_type"] = "yarn"; break;
    case RopeType::kLlama3: json["rope_type"] = "llama3"; break;
  }
  json["rope_theta"] = rope.theta;
  if (rope.type == RopeType::kDefault) return json;
  json["factor"] = rope.factor;
  if (rope.original_max_positions > 0) json["original_max_position_embeddings"] = rope.original_max_positions;
  if (rope.type == RopeType::kLlama3) {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.type == RopeType::kYarn) {
    json["beta_fast"] = rope.beta_fast;
    json["beta_slow"] = rope.beta_slow;
    if (rope.mscale > 0) json["mscale"] = rope.mscale;
    if (rope.mscale_all_dim > 0) json["mscale_all_dim"] = rope.mscale_all_dim;
    if (rope.attention_factor > 0) json["attention_factor"] = rope.attention_factor;
    json["truncate"] = rope.truncate;
  }
  return json;
}

void write_llama(base::OrderedJson& json, const ModelConfig& config) {
  json["architectures"] = {config.model_type == "qwen2"     ? "Qwen2ForCausalLM"
                           : config.model_type == "mistral" ? "MistralForCausalLM"
                                                            : "LlamaForCausalLM"};
  json["hidden_size"] = config.hidden_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["num_key_value_heads"] = config.num_kv_heads;
  json["head_dim"] = config.head_dim;
  json["intermediate_size"] = config.intermediate_size;
  json["max_position_embeddings"] = config.max_positions;
  json["rms_norm_eps"] = config.norm_eps;
  json["hidden_act"] = activation_name(config.activation);
  json["attention_bias"] = config.qkv_bias;
  json["mlp_bias"] = config.mlp_bias;
  json["attention_dropout"] = config.attention_dropout;
  if (config.model_type == "mistral") json["sliding_window"] = nullptr;
  if (config.model_type == "qwen2") json["use_sliding_window"] = false;
  json["rope_theta"] = config.rope.theta;
  json["rope_parameters"] = rope_to_json(config);
  // Older readers know only `rope_scaling`, and take null for the plain form.
  json["rope_scaling"] = config.rope.type == RopeType::kDefault ? base::OrderedJson(nullptr) : rope_to_json(config);
}

void write_gpt2(base::OrderedJson& json, const ModelConfig& config) {
  json["architectures"] = {"GPT2LMHeadModel"};
  json["n_embd"] = config.hidden_size;
  json["n_layer"] = config.num_layers;
  json["n_head"] = config.num_heads;
  json["n_inner"] = config.intermediate_size;
  json["n_positions"] = config.max_positions;
  json["layer_norm_epsilon"] = config.norm_eps;
  json["activation_function"] = activation_name(config.activation);
  json["resid_pdrop"] = json["embd_pdrop"] = config.dropout;
  json["attn_pdrop"] = config.attention_dropout;
}

void write_bert(base::OrderedJson& json, const ModelConfig& config) {
  json["architectures"] = {config.model_type == "roberta" ? "RobertaForMaskedLM" : "BertForMaskedLM"};
  json["hidden_size"] = config.hidden_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["intermediate_size"] = config.intermediate_size;
  json["max_position_embeddings"] = config.max_positions;
  json["type_vocab_size"] = config.type_vocab_size;
  json["layer_norm_eps"] = config.norm_eps;
  json["hidden_act"] = activation_name(config.activation);
  json["hidden_dropout_prob"] = config.dropout;
  json["attention_probs_dropout_prob"] = config.attention_dropout;
}

}  // namespace

std::string config_to_hf_text(const ModelConfig& config, std::string_view dtype) {
  base::OrderedJson json;
  switch (config.family) {
    case Family::kLlama: write_llama(json, config); break;
    case Family::kGpt2: write_gpt2(json, config); break;
    case Family::kBert: write_bert(json, config); break;
  }
  json["model_type"] = config.model_type;
  json["vocab_size"] = config.vocab_size;
  json["initializer_range"] = config.initializer_range;
  json["tie_word_embeddings"] = config.tied_embeddings;
  json["torch_dtype"] = dtype;
  json["dtype"] = dtype;
  if (config.bos_token_id) json["bos_token_id"] = *config.bos_token_id;
  if (config.pad_token_id) json["pad_token_id"] = *config.pad_token_id;
  if (config.eos_token_ids.size() == 1) json["eos_token_id"] = config.eos_token_ids[0];
  if (config.eos_token_ids.size() > 1) json["eos_token_id"] = config.eos_token_ids;
  return json.dump(2) + "\n";
}

}  // namespace gantry::spec
