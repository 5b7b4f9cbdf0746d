#include <gtest/gtest.h>

#include "gantry/base/json.h"
#include "gantry/spec/config.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using testing::input_error;
using testing::llama_text;

ModelConfig parse(const std::string& text) { return config_from_hf_text(text, "c.json"); }

std::string parse_error(const std::string& text) {
  return input_error([&] { parse(text); });
}

TEST(ConfigHf, ReadsTheTinyModels) {
  const auto folder = testing::shared_model("tiny-llama");
  if (!folder) GTEST_SKIP() << "needs the shared data folder";
  const ModelConfig llama = config_from_hf(*folder);
  EXPECT_EQ(llama.family, Family::kLlama);
  EXPECT_EQ(llama.hidden_size, 64);
  EXPECT_EQ(llama.num_layers, 3);
  EXPECT_EQ(llama.num_heads, 4);
  EXPECT_EQ(llama.num_kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_EQ(llama.intermediate_size, 176);
  EXPECT_EQ(llama.vocab_size, 256);
  EXPECT_EQ(llama.norm_eps, 1e-5);
  EXPECT_EQ(llama.rope.theta, 10000.0);
  EXPECT_FALSE(llama.tied_embeddings);
  EXPECT_FALSE(llama.pad_token_id.has_value());
  EXPECT_EQ(llama.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_TRUE(config_from_hf(*testing::shared_model("tiny-llama-tied")).tied_embeddings);

  const ModelConfig gpt2 = config_from_hf(*testing::shared_model("tiny-gpt2") / "config.json");
  EXPECT_EQ(gpt2.family, Family::kGpt2);
  EXPECT_EQ(gpt2.intermediate_size, 256) << "n_inner null is four times n_embd";
  EXPECT_EQ(gpt2.activation, Activation::kGeluTanh);
  EXPECT_TRUE(gpt2.tied_embeddings && gpt2.qkv_bias && gpt2.mlp_bias && gpt2.output_bias);

  const ModelConfig bert = config_from_hf(*testing::shared_model("tiny-bert"));
  EXPECT_EQ(bert.family, Family::kBert);
  EXPECT_EQ(bert.intermediate_size, 128);
  EXPECT_EQ(bert.type_vocab_size, 2);
  EXPECT_EQ(bert.activation, Activation::kGeluErf);
  EXPECT_EQ(bert.norm_eps, 1e-12);
  EXPECT_EQ(bert.dropout, 0);
}

TEST(ConfigHf, ReadsQwen2WithItsBiasesAndItsIdleWindow) {
  const ModelConfig config = parse(R"({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "max_window_layers": 21, "sliding_window": 16384, "use_sliding_window": false,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": true, "bos_token_id": 151643,
    "eos_token_id": [151645, 151643], "attention_dropout": 0.0, "hidden_act": "silu"})");
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{151645, 151643}));
}

TEST(ConfigHf, ReadsMistralAndRefusesItsSlidingWindow) {
  const auto text = [](const char* window) {
    return std::string(R"({"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 32,
      "vocab_size": 32768, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
      "sliding_window": )") +
           window + "}";
  };
  const ModelConfig config = parse(text("null"));
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_FALSE(config.qkv_bias || config.tied_embeddings);
  EXPECT_MENTIONS(parse_error(text("4096")), "c.json: sliding-window attention (window 4096) is not supported");
}

TEST(ConfigHf, ReadsTheRopeScalingOfLlama31) {
  const ModelConfig config = parse(llama_text(R"("rope_theta": 500000.0, "rope_scaling": {"factor": 8.0,
    "low_freq_factor": 1.5, "high_freq_factor": 5.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"},)"));
  EXPECT_EQ(config.rope.type, RopeType::kLlama3);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_EQ(config.rope.factor, 8.0);
  EXPECT_EQ(config.rope.low_freq_factor, 1.5);
  EXPECT_EQ(config.rope.high_freq_factor, 5.0);
  EXPECT_EQ(config.rope.original_max_positions, 8192);
}

TEST(ConfigHf, NewRopeParametersWinOverOldFields) {
  const ModelConfig config = parse(llama_text(
      R"("rope_theta": 10000.0, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0},)"));
  EXPECT_EQ(config.rope.type, RopeType::kLinear);
  EXPECT_EQ(config.rope.theta, 20000.0);
  const ModelConfig old =
      parse(llama_text(R"("rope_parameters": null, "rope_scaling": {"type": "dynamic", "factor": 2},)"));
  EXPECT_EQ(old.rope.type, RopeType::kDynamic);
  EXPECT_EQ(old.rope.factor, 2.0);
}

TEST(ConfigHf, YarnWithoutAFactorTakesTheRatioOfLengths) {
  const ModelConfig config = parse(
      llama_text(R"("rope_scaling": {"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 128},)"));
  EXPECT_EQ(config.rope.factor, 4.0);
}

TEST(ConfigHf, RobertaPositionsStartBehindThePadding) {
  EXPECT_EQ(testing::roberta().position_offset, 2);
  EXPECT_EQ(testing::bert().position_offset, 0);
}

TEST(ConfigHf, MergesTheEndTokensOfTheGenerationConfig) {
  const testing::TemporaryFolder folder;
  testing::write_raw(folder / "config.json", llama_text(R"("eos_token_id": 1,)"));
  EXPECT_EQ(config_from_hf(folder.path()).eos_token_ids, std::vector<std::int64_t>{1});
  testing::write_raw(folder / "generation_config.json", R"({"eos_token_id": [1, 7], "pad_token_id": 9})");
  const ModelConfig config = config_from_hf(folder.path());
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{1, 7}));
  EXPECT_EQ(config.pad_token_id, 9);
  testing::write_raw(folder / "generation_config.json", R"({"eos_token_id": -5})");
  EXPECT_MENTIONS(input_error([&] { config_from_hf(folder.path()); }), "generation_config.json: eos_token_id -5");
}

TEST(ConfigHf, SurvivesTheRoundTrip) {
  ModelConfig qwen = parse(R"({"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 99, "max_position_embeddings": 256,
    "tie_word_embeddings": true, "eos_token_id": [3, 4], "bos_token_id": 3})");
  ModelConfig yarn = testing::llama();
  yarn.rope = {.type = RopeType::kYarn,
               .theta = 12345.5,
               .factor = 4,
               .original_max_positions = 128,
               .beta_fast = 20,
               .beta_slow = 2,
               .mscale = 0.7,
               .mscale_all_dim = 0.9,
               .attention_factor = 1.1,
               .truncate = false};
  yarn.pad_token_id = 0;
  ModelConfig llama3 = testing::llama();
  llama3.rope = {.type = RopeType::kLlama3,
                 .theta = 5e5,
                 .factor = 8,
                 .original_max_positions = 64,
                 .low_freq_factor = 1.25,
                 .high_freq_factor = 3};
  llama3.qkv_bias = llama3.output_bias = llama3.mlp_bias = true;
  ModelConfig mistral = testing::llama();
  mistral.model_type = "mistral";
  mistral.head_dim = 32;
  mistral.norm_eps = 1.5e-6;
  ModelConfig gpt2 = testing::gpt2();
  gpt2.dropout = 0.25;
  gpt2.tied_embeddings = false;
  gpt2.activation = Activation::kQuickGelu;
  for (const ModelConfig& config : {qwen, yarn, llama3, mistral, gpt2, testing::bert(0.2), testing::roberta()}) {
    const std::string text = config_to_hf_text(config, "bfloat16");
    EXPECT_EQ(parse(text), config) << text;
  }
}

TEST(ConfigHf, WritesWhatOtherReadersNeed) {
  const auto json = base::parse_json(config_to_hf_text(testing::roberta(), "float32"), "out");
  EXPECT_EQ(json.at("architectures"), base::Json::parse(R"(["RobertaForMaskedLM"])"));
  EXPECT_EQ(json.at("torch_dtype"), "float32");
  const auto qwen = base::parse_json(config_to_hf_text(testing::llama(), "bfloat16"), "out");
  EXPECT_EQ(qwen.at("architectures"), base::Json::parse(R"(["LlamaForCausalLM"])"));
  EXPECT_TRUE(qwen.at("rope_scaling").is_null());
  EXPECT_EQ(qwen.at("dtype"), "bfloat16");
}

TEST(ConfigHf, NamesUnsupportedModels) {
  const std::string message = parse_error(R"({"model_type": "mamba", "vocab_size": 10})");
  EXPECT_MENTIONS(message, "c.json: model_type 'mamba' is not supported; supported are llama, mistral, qwen2, gpt2");
  EXPECT_MENTIONS(parse_error(R"({"vocab_size": 10})"), "c.json: 'model_type' is missing");
  EXPECT_MENTIONS(parse_error("[1]"), "c.json: expected an object holding 'model_type', found array");
  EXPECT_MENTIONS(parse_error("{\"model_type\": "), "c.json");
}

TEST(ConfigHf, NamesMissingAndMistypedFields) {
  EXPECT_MENTIONS(parse_error(R"({"model_type": "llama", "vocab_size": 10})"), "'hidden_size' is missing");
  EXPECT_MENTIONS(parse_error(R"({"model_type": "gpt2", "vocab_size": 10})"), "'n_embd' is missing");
  EXPECT_MENTIONS(parse_error(R"({"model_type": "bert", "vocab_size": 10})"), "'hidden_size' is missing");
  EXPECT_MENTIONS(parse_error(R"({"model_type": "llama", "vocab_size": "10"})"), "'vocab_size' has the wrong type");
  EXPECT_MENTIONS(parse_error(R"({"model_type": "llama", "vocab_size": 1e300})"), "'vocab_size' has the wrong type");
}

struct BadField {
  const char* members;
  const char* message;
};

class ConfigHfBadField : public ::testing::TestWithParam<BadField> {};

TEST_P(ConfigHfBadField, IsRefusedByName) {
  // Later members win in JSON objects that repeat a name, so the bad ones replace those of the good text.
  std::string text = llama_text();
  text.pop_back();
  EXPECT_MENTIONS(parse_error(text + ", " + GetParam().members + "}"), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Llama, ConfigHfBadField,
    ::testing::Values(
        BadField{R"("hidden_size": -64)", "c.json: hidden_size is -64, expected 1 to 1048576"},
        BadField{R"("hidden_size": 9223372036854775807)", "hidden_size is 9223372036854775807"},
        BadField{R"("vocab_size": 0)", "vocab_size is 0"},
        BadField{R"("num_hidden_layers": 1000000)", "num_hidden_layers is 1000000, expected 1 to 16384"},
        BadField{R"("num_attention_heads": 0)", "num_attention_heads is 0"},
        BadField{R"("num_key_value_heads": 3)", "num_attention_heads 8 is not a multiple of num_key_value_heads 3"},
        BadField{R"("head_dim": 7)", "head_dim (or hidden_size / num_attention_heads) is 7, which must be even"},
        BadField{R"("intermediate_size": 99999999999)", "intermediate_size is 99999999999"},
        BadField{R"("max_position_embeddings": -1)", "max_position_embeddings is -1"},
        BadField{R"("hidden_size": 1048576, "head_dim": 64, "intermediate_size": 16777216, "num_hidden_layers": 16384)",
                 "more than is plausible"},
        BadField{R"("rms_norm_eps": -1.0)", "rms_norm_eps is -1"},
        BadField{R"("hidden_act": "tanhshrink")", "activation 'tanhshrink' is not one of silu"},
        BadField{R"("attention_dropout": 1.5)", "attention_dropout is 1.5"},
        BadField{R"("initializer_range": -0.1)", "initializer_range is -0.1"},
        BadField{R"("bos_token_id": 4294967296)", "bos_token_id 4294967296 is not a token"},
        BadField{R"("eos_token_id": [1, "x"])", "'eos_token_id' has the wrong type"},
        BadField{R"("rope_theta": 0)", "rope_theta is 0"},
        BadField{R"("rope_scaling": 4)", "'rope_scaling' must be an object, found number"},
        BadField{R"("rope_scaling": {"rope_type": "longrope"})", "rope type 'longrope' is not one of default, linear"},
        BadField{R"("rope_scaling": {"rope_type": "linear", "factor": 0})", "rope_scaling factor is 0"},
        BadField{R"("rope_scaling": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4})",
                 "rope high_freq_factor 4 must be above low_freq_factor 4"},
        BadField{R"("rope_scaling": {"rope_type": "yarn", "beta_fast": 1, "beta_slow": 2})", "rope beta_fast 1 must"},
        BadField{R"("rope_scaling": {"rope_type": "yarn", "attention_factor": -1})", "attention_factor -1 must not be"},
        BadField{R"("rope_scaling": {"rope_type": "linear", "original_max_position_embeddings": -1})",
                 "original_max_position_embeddings is -1"},
        BadField{R"("rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5})",
                 "partial_rotary_factor 0.5 is not supported"}));

TEST(ConfigHf, RefusesVariantsOfGpt2AndBertThatItCannotRun) {
  const std::string gpt2 = R"({"model_type": "gpt2", "vocab_size": 320, "n_embd": 64, "n_layer": 2)";
  EXPECT_MENTIONS(parse_error(gpt2 + R"(, "n_head": 5})"), "n_embd 64 is not a multiple of n_head 5");
  EXPECT_MENTIONS(parse_error(gpt2 + R"(, "n_head": 4, "scale_attn_by_inverse_layer_idx": true})"), "layer-scaled");
  const std::string bert = R"({"model_type": "bert", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64)";
  EXPECT_MENTIONS(parse_error(bert + R"(, "position_embedding_type": "relative_key"})"), "'relative_key' is not");
  EXPECT_MENTIONS(parse_error(bert + R"(, "is_decoder": true})"), "BERT as a decoder");
  EXPECT_MENTIONS(parse_error(bert + R"(, "type_vocab_size": 0})"), "type_vocab_size is 0");
  const std::string roberta = R"({"model_type": "roberta", "vocab_size": 320, "hidden_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "pad_token_id": )";
  EXPECT_MENTIONS(parse_error(roberta + "9223372036854775807}"), "leaves no position of 512");
}

TEST(ConfigHf, SizesAreCalledAsTheFamilyCallsThem) {
  const std::string gpt2 = R"({"model_type": "gpt2", "vocab_size": 320, "n_embd": 64, "n_head": 4, "n_layer": 2, )";
  for (const char* field :
       {"n_embd", "n_layer", "n_head", "n_inner", "n_positions", "resid_pdrop", "attn_pdrop", "layer_norm_epsilon"}) {
    const std::string again = gpt2.substr(0, gpt2.size() - 2) + fmt::format(R"(, "{}": -3}})", field);
    EXPECT_MENTIONS(parse_error(again), fmt::format("{} is -3", field));
  }
  const std::string bert = R"({"model_type": "bert", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64)";
  for (const char* field : {"num_hidden_layers", "max_position_embeddings", "hidden_dropout_prob",
                            "attention_probs_dropout_prob", "layer_norm_eps"}) {
    EXPECT_MENTIONS(parse_error(bert + fmt::format(R"(, "{}": -3}})", field)), fmt::format("{} is -3", field));
  }
  EXPECT_MENTIONS(parse_error(bert + R"(, "num_attention_heads": 128})"), "hidden_size / num_attention_heads is 0");
}

TEST(ConfigHf, NamesAMissingFile) {
  EXPECT_MENTIONS(input_error([] { config_from_hf("/nonexistent/model"); }), "/nonexistent/model");
}

}  // namespace
}  // namespace gantry::spec
