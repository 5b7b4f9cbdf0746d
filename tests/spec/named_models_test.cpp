#include "gantry/spec/named_models.h"

#include <gtest/gtest.h>

#include "gantry/spec/tensor_table.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

TEST(NamedModels, EveryNameIsAValidModelThatEightRanksCanShareWhereItsHeadsAllow) {
  for (const std::string& name : named_models()) {
    SCOPED_TRACE(name);
    const ModelConfig config = named_model(name);
    EXPECT_NO_THROW(validate(config, name));
    if (!name.starts_with("gpt-") && !name.starts_with("llama")) continue;
    for (const std::int64_t size :
         {config.num_heads, config.num_kv_heads, config.hidden_size, config.intermediate_size, config.vocab_size}) {
      EXPECT_EQ(size % 8, 0);
    }
  }
}

TEST(NamedModels, TheLadderHasThePapersSizes) {
  const struct {
    const char* size;
    std::int64_t hidden;
    std::int64_t layers;
    std::int64_t llama_intermediate;
  } rungs[] = {{"1.3b", 2048, 24, 5632},
               {"2.7b", 2560, 32, 6912},
               {"7b", 4096, 32, 11008},
               {"13b", 5120, 40, 13824},
               {"22b", 6144, 48, 16384}};
  for (const auto& rung : rungs) {
    SCOPED_TRACE(rung.size);
    const ModelConfig gpt = named_model(std::string("gpt-") + rung.size);
    const ModelConfig llama = named_model(std::string("llama-") + rung.size);
    for (const ModelConfig& config : {gpt, llama}) {
      EXPECT_EQ(config.hidden_size, rung.hidden);
      EXPECT_EQ(config.num_layers, rung.layers);
      EXPECT_EQ(config.vocab_size, 50304);
      EXPECT_FALSE(config.tied_embeddings);
      EXPECT_EQ(config.dropout + config.attention_dropout, 0);
    }
    EXPECT_EQ(gpt.intermediate_size, 4 * rung.hidden);
    EXPECT_EQ(llama.intermediate_size, rung.llama_intermediate);
    // The name says the size, give or take the embeddings and what a gated unit adds.
    const double billions = std::stod(rung.size);
    EXPECT_NEAR(static_cast<double>(parameter_count(gpt)) / 1e9, billions, 0.12 * billions);
    EXPECT_NEAR(static_cast<double>(parameter_count(llama)) / 1e9, billions, 0.12 * billions);
  }
  EXPECT_EQ(named_model("gpt-1.3b").head_dim, 128);
}

TEST(NamedModels, AGptBlockHasNineHiddenSizesMoreElementsThanThePapers) {
  const ModelConfig config = named_model("gpt-1.3b");
  std::int64_t block = 0;
  for (const TensorSpec& tensor : tensor_table(config)) block += tensor.layer == 3 ? tensor.numel() : 0;
  EXPECT_EQ(block - 50'339'840, 9 * config.hidden_size);
}

TEST(NamedModels, PublishedModelsHaveTheirPublishedParameterCounts) {
  EXPECT_EQ(parameter_count(named_model("gpt2")), 124'439'808);
  EXPECT_EQ(parameter_count(named_model("llama3-8b")), 8'030'261'248);
  EXPECT_EQ(parameter_count(named_model("llama3-70b")), 70'553'706'496);
  EXPECT_EQ(parameter_count(named_model("smollm2-135m")), 134'515'008);
  EXPECT_NEAR(static_cast<double>(parameter_count(named_model("bert-large"))), 335.2e6, 1e6);
}

TEST(NamedModels, AnUnknownNameListsTheKnownOnes) {
  const std::string message = testing::input_error([] { named_model("gpt-5b"); });
  EXPECT_NE(message.find("model 'gpt-5b' is not one of gpt-1.3b"), std::string::npos) << message;
  EXPECT_NE(message.find("bert-large"), std::string::npos) << message;
}

}  // namespace
}  // namespace gantry::spec
