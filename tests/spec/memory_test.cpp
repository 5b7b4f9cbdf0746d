#include "gantry/spec/memory.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

TEST(MemorySummary, SplitsSmolLM2ByRole) {
  const ModelConfig config = config_from_hf_text(R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
    "tie_word_embeddings": true})",
                                                 "test");
  const MemoryByPurpose memory = memory_summary(config, 2);
  EXPECT_EQ(memory.parameters, 134'515'008u);
  EXPECT_EQ(memory.weight_bytes, 2u * 134'515'008);
  EXPECT_EQ(memory.role_bytes(TensorRole::kEmbedding), 2u * 49152 * 576);
  EXPECT_EQ(memory.role_bytes(TensorRole::kAttention), 2u * 30 * (2 * 576 * 576 + 2 * 192 * 576));
  EXPECT_EQ(memory.role_bytes(TensorRole::kMlp), 2u * 30 * 3 * 576 * 1536);
  EXPECT_EQ(memory.role_bytes(TensorRole::kNorm), 2u * 61 * 576);
  EXPECT_EQ(memory.role_bytes(TensorRole::kHead), 0u) << "tied";
  EXPECT_EQ(memory.kv_cache_bytes_per_token, 30u * 2 * 192 * 2);
}

TEST(MemorySummary, CountsTrainingStates) {
  const auto parameters = static_cast<std::uint64_t>(parameter_count(testing::gpt2()));
  const MemoryByPurpose half = memory_summary(testing::gpt2(), 2);
  EXPECT_EQ(half.master_remainder_bytes, 2 * parameters);
  EXPECT_EQ(half.training_bytes(), 14 * parameters) << "weights 2, remainders 2, gradients 2, moments 8";
  const MemoryByPurpose full = memory_summary(testing::gpt2(), 4);
  EXPECT_EQ(full.master_remainder_bytes, 0u);
  EXPECT_EQ(full.training_bytes(), 16 * parameters) << "weights 4, gradients 4, moments 8";
}

TEST(MemorySummary, RolesAddUpForEveryFamily) {
  for (const ModelConfig& config : {testing::llama(), testing::gpt2(), testing::bert(), testing::roberta()}) {
    const MemoryByPurpose memory = memory_summary(config, 4);
    const auto& roles = memory.weight_bytes_by_role;
    EXPECT_EQ(std::accumulate(roles.begin(), roles.end(), std::uint64_t{0}), memory.weight_bytes);
    EXPECT_EQ(memory.weight_bytes, 4 * static_cast<std::uint64_t>(parameter_count(config)));
    EXPECT_EQ(memory.kv_cache_bytes_per_token == 0, config.family == Family::kBert);
  }
}

TEST(MemorySummary, RefusesOddWidths) {
  EXPECT_MENTIONS(testing::input_error([] { memory_summary(testing::gpt2(), 3); }), "an element of 3 bytes");
}

}  // namespace
}  // namespace gantry::spec
