#include "gantry/spec/config.h"

#include "gantry/base/check.h"
#include "gantry/spec/config_internal.h"

namespace gantry::spec {
namespace {

using internal::FieldNames;

constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;

void check_size(std::int64_t value, std::int64_t limit, std::string_view name, std::string_view source) {
  GANTRY_CHECK(value > 0 && value <= limit, "{}: {} is {}, expected 1 to {}", source, name, value, limit);
}

void check_rope(const ModelConfig& config, std::string_view source, const FieldNames& names) {
  const RopeConfig& rope = config.rope;
  GANTRY_CHECK(config.head_dim % 2 == 0, "{}: {} is {}, which must be even for rotary positions", source,
               names.head_dim, config.head_dim);
  GANTRY_CHECK(rope.theta > 1 && rope.theta < 1e30, "{}: {} is {}, expected a number above 1 and below 1e30", source,
               names.rope_theta, rope.theta);
  GANTRY_CHECK(rope.factor > 1e-6 && rope.factor < 1e6, "{}: {} is {}, expected a number above 1e-6 and below 1e6",
               source, names.rope_factor, rope.factor);
  GANTRY_CHECK(rope.original_max_positions >= 0 && rope.original_max_positions <= kMaxPositions,
               "{}: original_max_position_embeddings is {}, expected 1 to {}", source, rope.original_max_positions,
               kMaxPositions);
  if (rope.type == RopeType::kLlama3) {
    GANTRY_CHECK(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor,
                 "{}: rope high_freq_factor {} must be above low_freq_factor {}, and that above 0", source,
                 rope.high_freq_factor, rope.low_freq_factor);
  }
  if (rope.type == RopeType::kYarn) {
    GANTRY_CHECK(rope.beta_slow > 0 && rope.beta_fast > rope.beta_slow,
                 "{}: rope beta_fast {} must be above beta_slow {}, and that above 0", source, rope.beta_fast,
                 rope.beta_slow);
    GANTRY_CHECK(rope.mscale >= 0 && rope.mscale_all_dim >= 0 && rope.attention_factor >= 0,
                 "{}: rope mscale {}, mscale_all_dim {} and attention_factor {} must not be negative", source,
                 rope.mscale, rope.mscale_all_dim, rope.attention_factor);
  }
}

// With every product of sizes below 2^46 no sum over tensors can overflow, whatever the element type.
void check_parameters(const ModelConfig& config, std::string_view source) {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double block = 2 * real(config.q_size()) + 2 * real(config.kv_size()) + 3 * real(config.intermediate_size);
  const double rows = 2 * real(config.vocab_size) + real(config.num_layers) * block +
                      (config.family == Family::kLlama ? 0.0 : real(config.max_positions));
  constexpr double kMost = 0x1p46;
  GANTRY_CHECK(rows * real(config.hidden_size) <= kMost,
               "{}: these sizes make a model of {:.2g} parameters, more than is plausible ({:.2g})", source,
               rows * real(config.hidden_size), kMost);
}

void check_training(const ModelConfig& config, std::string_view source, const FieldNames& names) {
  const auto check_rate = [&](double rate, std::string_view name) {
    GANTRY_CHECK(rate >= 0 && rate < 1, "{}: {} is {}, expected at least 0 and below 1", source, name, rate);
  };
  check_rate(config.dropout, names.dropout);
  check_rate(config.attention_dropout, names.attention_dropout);
  GANTRY_CHECK(config.initializer_range >= 0 && config.initializer_range < 1e3, "{}: initializer_range is {}", source,
               config.initializer_range);
}

void check_token_ids(const ModelConfig& config, std::string_view source) {
  // -1 stands for "none" in older files; ids past the vocabulary occur and never match.
  const auto check_id = [&](std::int64_t id, std::string_view name) {
    GANTRY_CHECK(id >= -1 && id < std::int64_t{1} << 31, "{}: {} {} is not a token", source, name, id);
  };
  check_id(config.bos_token_id.value_or(0), "bos_token_id");
  check_id(config.pad_token_id.value_or(0), "pad_token_id");
  for (const std::int64_t id : config.eos_token_ids) check_id(id, "eos_token_id");
}

}  // namespace

namespace internal {

FieldNames hf_names(Family family) {
  FieldNames names{.vocab_size = "vocab_size",
                   .hidden_size = "hidden_size",
                   .num_layers = "num_hidden_layers",
                   .num_heads = "num_attention_heads",
                   .num_kv_heads = "num_key_value_heads",
                   .head_dim = "hidden_size / num_attention_heads",
                   .intermediate_size = "intermediate_size",
                   .max_positions = "max_position_embeddings",
                   .type_vocab_size = "type_vocab_size",
                   .norm_eps = "rms_norm_eps",
                   .rope_theta = "rope_theta",
                   .rope_factor = "rope_scaling factor",
                   .dropout = "hidden_dropout_prob",
                   .attention_dropout = "attention_dropout"};
  switch (family) {
    case Family::kLlama: names.head_dim = "head_dim (or hidden_size / num_attention_heads)"; return names;
    case Family::kGpt2:
      names.hidden_size = "n_embd";
      names.num_layers = "n_layer";
      names.num_heads = names.num_kv_heads = "n_head";
      names.head_dim = "n_embd / n_head";
      names.intermediate_size = "n_inner";
      names.max_positions = "n_positions";
      names.norm_eps = "layer_norm_epsilon";
      names.dropout = "resid_pdrop";
      names.attention_dropout = "attn_pdrop";
      return names;
    case Family::kBert:
      names.num_kv_heads = names.num_heads;
      names.norm_eps = "layer_norm_eps";
      names.attention_dropout = "attention_probs_dropout_prob";
      return names;
  }
  GANTRY_UNREACHABLE();
}

void validate_fields(const ModelConfig& config, std::string_view source, const FieldNames& names) {
  constexpr std::int64_t kLarge = std::int64_t{1} << 24;
  check_size(config.vocab_size, kLarge, names.vocab_size, source);
  check_size(config.hidden_size, 1 << 20, names.hidden_size, source);
  check_size(config.num_layers, 1 << 14, names.num_layers, source);
  check_size(config.num_heads, 1 << 14, names.num_heads, source);
  check_size(config.num_kv_heads, 1 << 14, names.num_kv_heads, source);
  check_size(config.head_dim, 1 << 14, names.head_dim, source);
  check_size(config.intermediate_size, kLarge, names.intermediate_size, source);
  check_size(config.max_positions, kMaxPositions, names.max_positions, source);
  GANTRY_CHECK(config.num_heads % config.num_kv_heads == 0, "{}: {} {} is not a multiple of {} {}", source,
               names.num_heads, config.num_heads, names.num_kv_heads, config.num_kv_heads);
  GANTRY_CHECK(config.norm_eps >= 0 && config.norm_eps < 1, "{}: {} is {}, expected at least 0 and below 1", source,
               names.norm_eps, config.norm_eps);
  if (config.family == Family::kLlama) {
    check_rope(config, source, names);
  } else {
    GANTRY_CHECK(config.num_kv_heads == config.num_heads && config.q_size() == config.hidden_size,
                 "{}: {} {} is not a multiple of {} {}", source, names.hidden_size, config.hidden_size, names.num_heads,
                 config.num_heads);
  }
  if (config.family == Family::kBert) check_size(config.type_vocab_size, 1 << 16, names.type_vocab_size, source);
  check_parameters(config, source);
  check_training(config, source, names);
  check_token_ids(config, source);
}

}  // namespace internal

void validate(const ModelConfig& config, std::string_view source) {
  internal::validate_fields(config, source, internal::hf_names(config.family));
}

std::string_view family_name(Family family) {
  switch (family) {
    case Family::kLlama: return "llama";
    case Family::kGpt2: return "gpt2";
    case Family::kBert: return "bert";
  }
  GANTRY_UNREACHABLE();
}

std::string_view activation_name(Activation activation) {
  switch (activation) {
    case Activation::kSilu: return "silu";
    case Activation::kGeluErf: return "gelu";
    case Activation::kGeluTanh: return "gelu_new";
    case Activation::kQuickGelu: return "quick_gelu";
    case Activation::kRelu: return "relu";
  }
  GANTRY_UNREACHABLE();
}

Activation parse_activation(std::string_view name, std::string_view source) {
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGeluErf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "quick_gelu") return Activation::kQuickGelu;
  if (name == "relu") return Activation::kRelu;
  base::fail_input("{}: activation '{}' is not one of silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu",
                   source, name);
}

}  // namespace gantry::spec
