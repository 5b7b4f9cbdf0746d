#pragma once
// Architectures as data. A ModelConfig is all that a loader, planner, quantiser or re-sharder needs to know of a model;
// the tensor table (tensor_table.h) and the operator graph (operator_graph.h) are derived from it.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::formats {
class GgufFile;
}

namespace gantry::spec {

enum class Family {
  kLlama,  ///< pre-norm decoder, RMSNorm, RoPE, gated MLP (Llama, Mistral, Qwen2, SmolLM)
  kGpt2,   ///< pre-norm decoder, LayerNorm, learned positions
  kBert,   ///< post-norm encoder with a masked-LM head (BERT, RoBERTa)
};

enum class Activation { kSilu, kGeluErf, kGeluTanh, kQuickGelu, kRelu };

enum class RopeType { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

/// Rotary position embedding and its long-context variants; meanings as in a Hugging Face `rope_scaling` object.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  std::int64_t original_max_positions = 0;  ///< 0: the model's max_positions
  double low_freq_factor = 1.0;             ///< llama3
  double high_freq_factor = 4.0;            ///< llama3
  double beta_fast = 32.0;                  ///< yarn
  double beta_slow = 1.0;                   ///< yarn
  double mscale = 0.0;                      ///< yarn; 0: not given
  double mscale_all_dim = 0.0;              ///< yarn; 0: not given
  double attention_factor = 0.0;            ///< yarn; 0: derived from the factor
  bool truncate = true;                     ///< yarn: round the correction range to whole dimensions

  bool operator==(const RopeConfig&) const = default;
};

struct ModelConfig {
  Family family = Family::kLlama;
  std::string model_type;  ///< Hugging Face's name ("llama", "qwen2", "gpt2", "roberta"), kept for saving

  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t max_positions = 0;
  std::int64_t type_vocab_size = 0;  ///< BERT segment embeddings

  Activation activation = Activation::kSilu;
  double norm_eps = 1e-5;
  RopeConfig rope;
  bool qkv_bias = false;
  bool output_bias = false;  ///< bias of the attention output projection
  bool mlp_bias = false;
  bool tied_embeddings = false;
  double initializer_range = 0.02;
  double dropout = 0.0;            ///< hidden and embedding dropout while training
  double attention_dropout = 0.0;  ///< on attention probabilities while training

  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;  ///< any of them ends a text
  std::optional<std::int64_t> pad_token_id;

  std::int64_t position_offset = 0;  ///< RoBERTa: positions start at pad_token_id + 1

  bool operator==(const ModelConfig&) const = default;

  bool is_decoder() const { return family != Family::kBert; }
  std::int64_t q_size() const { return num_heads * head_dim; }
  std::int64_t kv_size() const { return num_kv_heads * head_dim; }
};

/// Throws InputError naming `source` and the field when a size is missing, not positive, absurd (so that products could
/// overflow), or inconsistent with another.
void validate(const ModelConfig& config, std::string_view source);

/// Reads config.json text (already parsed) of a supported `model_type`; InputError lists the supported ones otherwise.
ModelConfig config_from_hf_text(std::string_view json_text, std::string_view source);
/// Reads DIR/config.json, or the file itself; merges DIR/generation_config.json's end tokens when present.
ModelConfig config_from_hf(const std::filesystem::path& dir_or_file);
/// config.json for `config`, readable by transformers. `dtype` is "float32" or "bfloat16".
std::string config_to_hf_text(const ModelConfig& config, std::string_view dtype);

/// Reads the metadata of a GGUF file (architectures llama, qwen2, gpt2, bert). GGUF has no masked-LM head, so a BERT
/// model of such a file lacks the head's tensors.
ModelConfig config_from_gguf(const formats::GgufFile& file);

std::string_view family_name(Family family);
std::string_view activation_name(Activation activation);
/// Hugging Face's activation names; InputError for one that no kernel implements.
Activation parse_activation(std::string_view name, std::string_view source);

}  // namespace gantry::spec
