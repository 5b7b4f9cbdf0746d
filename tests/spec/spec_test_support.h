#pragma once
// Configs that several tests of this module use.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "gantry/base/env.h"
#include "gantry/spec/config.h"
#include "gantry/spec/symbolic_size.h"
#include "tests/formats/test_files.h"

namespace gantry::spec::testing {

using formats::testing::input_error;
using formats::testing::TemporaryFolder;
using formats::testing::write_raw;

inline const SymbolicSize kB = Symbol::kBatch;
inline const SymbolicSize kS = Symbol::kSequence;

/// A folder of ../shared/data/llm; nothing where the data is absent.
inline std::optional<std::filesystem::path> shared_model(const char* name) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data) return std::nullopt;
  return *data / "llm" / name;
}

/// config.json of a small Llama; `more` is a list of members that ends in a comma, and wins over those here.
inline std::string llama_text(const std::string& more = "") {
  return "{" + more + R"("model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512})";
}

inline ModelConfig llama() { return config_from_hf_text(llama_text(), "test"); }

inline ModelConfig gpt2() {
  return config_from_hf_text(R"({"model_type": "gpt2", "vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4,
    "n_positions": 128})",
                             "test");
}

inline ModelConfig bert(double attention_dropout = 0.1) {
  ModelConfig config = config_from_hf_text(R"({"model_type": "bert", "vocab_size": 320, "hidden_size": 128,
    "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 512})",
                                           "test");
  config.attention_dropout = attention_dropout;
  return config;
}

inline ModelConfig roberta() {
  return config_from_hf_text(R"({"model_type": "roberta", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 130, "pad_token_id": 1})",
                             "test");
}

}  // namespace gantry::spec::testing
