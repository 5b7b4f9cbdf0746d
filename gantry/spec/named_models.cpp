#include "gantry/spec/named_models.h"

#include <fmt/ranges.h>

#include <array>

#include "gantry/base/check.h"

namespace gantry::spec {
namespace {

struct Rung {
  std::string_view size;
  int hidden;
  int layers;
  int heads;
};
constexpr std::array<Rung, 5> kLadder = {{{"1.3b", 2048, 24, 16},
                                          {"2.7b", 2560, 32, 32},
                                          {"7b", 4096, 32, 32},
                                          {"13b", 5120, 40, 40},
                                          {"22b", 6144, 48, 48}}};
constexpr int kLadderVocabulary = 50304;

std::string gpt_text(const Rung& rung) {
  return fmt::format(R"({{"model_type": "gpt2", "vocab_size": {}, "n_embd": {}, "n_layer": {}, "n_head": {},
    "n_positions": 4096, "tie_word_embeddings": false, "resid_pdrop": 0, "attn_pdrop": 0}})",
                     kLadderVocabulary, rung.hidden, rung.layers, rung.heads);
}

std::string llama_text(const Rung& rung) {
  // 8/3 of the hidden size, up to a whole number of 256.
  const int intermediate = ((8 * rung.hidden + 2) / 3 + 255) / 256 * 256;
  return fmt::format(R"({{"model_type": "llama", "vocab_size": {}, "hidden_size": {}, "num_hidden_layers": {},
    "num_attention_heads": {}, "intermediate_size": {}, "max_position_embeddings": 32768}})",
                     kLadderVocabulary, rung.hidden, rung.layers, rung.heads, intermediate);
}

struct Published {
  std::string_view name;
  std::string_view text;
};
constexpr std::array<Published, 5> kPublished = {{
    {"llama3-8b", R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-5, "rope_theta": 500000, "bos_token_id": 128000, "eos_token_id": 128001})"},
    {"llama3-70b", R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "num_hidden_layers": 80,
      "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672, "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-5, "rope_theta": 500000, "bos_token_id": 128000, "eos_token_id": 128001})"},
    {"bert-large", R"({"model_type": "bert", "vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24,
      "num_attention_heads": 16, "intermediate_size": 4096, "pad_token_id": 0})"},
    {"gpt2", R"({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
      "bos_token_id": 50256, "eos_token_id": 50256})"},
    {"smollm2-135m", R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30,
      "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true, "initializer_range": 0.041666666666666664,
      "bos_token_id": 1, "eos_token_id": 2})"},
}};

}  // namespace

ModelConfig named_model(std::string_view name) {
  for (const Rung& rung : kLadder) {
    if (name == fmt::format("gpt-{}", rung.size)) return config_from_hf_text(gpt_text(rung), name);
    if (name == fmt::format("llama-{}", rung.size)) return config_from_hf_text(llama_text(rung), name);
  }
  for (const Published& model : kPublished) {
    if (name == model.name) return config_from_hf_text(model.text, name);
  }
  base::fail_input("model '{}' is not one of {}; a folder with config.json is named by its path", name,
                   fmt::join(named_models(), ", "));
}

std::vector<std::string> named_models() {
  std::vector<std::string> names;
  for (const Rung& rung : kLadder) names.push_back(fmt::format("gpt-{}", rung.size));
  for (const Rung& rung : kLadder) names.push_back(fmt::format("llama-{}", rung.size));
  for (const Published& model : kPublished) names.emplace_back(model.name);
  return names;
}

}  // namespace gantry::spec
