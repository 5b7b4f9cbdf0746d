#include <gtest/gtest.h>

#include <utility>

#include "gantry/formats/gguf.h"
#include "gantry/spec/config.h"
#include "gantry/spec/tensor_table.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using formats::GgufFile;
using formats::GgufTensorToWrite;
using formats::GgufType;
using formats::GgufValue;
using formats::testing::bytes_of;
using testing::input_error;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

Metadata sizes(const std::string& architecture, const Metadata& more = {}) {
  const auto key = [&](const char* name) { return architecture + "." + name; };
  Metadata metadata = {{"general.architecture", architecture},
                       {key("block_count"), std::uint32_t{2}},
                       {key("embedding_length"), std::uint32_t{64}},
                       {key("feed_forward_length"), std::uint32_t{96}},
                       {key("context_length"), std::uint32_t{512}},
                       {key("attention.head_count"), std::uint32_t{4}},
                       {"tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "c"}}};
  for (const auto& [name, value] : more) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == name; });
    metadata.emplace_back(name, value);
  }
  return metadata;
}

ModelConfig read(const Metadata& metadata, const std::vector<GgufTensorToWrite>& tensors = {}) {
  const testing::TemporaryFolder folder;
  formats::write_gguf(folder / "m.gguf", metadata, tensors);
  return config_from_gguf(GgufFile::open(folder / "m.gguf"));
}

std::string read_error(const Metadata& metadata, const std::vector<GgufTensorToWrite>& tensors = {}) {
  return input_error([&] { read(metadata, tensors); });
}

const std::vector<float> kOne = {0};

GgufTensorToWrite one(const char* name) { return {name, GgufType::kF32, {1}, bytes_of(kOne)}; }

TEST(ConfigGguf, ReadsSmolLM2) {
  const auto path = base::env("GANTRY_SMOLLM2_GGUF");
  const std::filesystem::path file = path ? *path : GANTRY_SOURCE_DIR "/build/model/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs SmolLM2 (GANTRY_SMOLLM2_GGUF names the file)";
  const auto gguf = GgufFile::open(file);
  const ModelConfig config = config_from_gguf(gguf);
  EXPECT_EQ(config.family, Family::kLlama);
  EXPECT_EQ(config.num_layers, 30);
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.num_heads, 9);
  EXPECT_EQ(config.num_kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.intermediate_size, 1536);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.max_positions, 8192);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.rope, RopeConfig{.theta = 100000.0});
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.qkv_bias || config.output_bias || config.mlp_bias);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_EQ(config.pad_token_id, 2);
  EXPECT_EQ(parameter_count(config), 134'515'008);
  const auto table = tensor_table(config);
  EXPECT_EQ(table.size(), gguf.tensors().size());
  for (const TensorSpec& tensor : table) EXPECT_EQ(gguf.get(tensor.gguf_name).shape, tensor.shape) << tensor.name;
}

TEST(ConfigGguf, ReadsBiasesAndUntiedHeadsFromTheTensors) {
  const ModelConfig tied = read(sizes("qwen2"));
  EXPECT_EQ(tied.model_type, "qwen2");
  EXPECT_EQ(tied.vocab_size, 3);
  EXPECT_EQ(tied.num_kv_heads, 4);
  EXPECT_TRUE(tied.tied_embeddings);
  EXPECT_FALSE(tied.qkv_bias);
  const ModelConfig untied = read(sizes("qwen2", {{"qwen2.attention.head_count_kv", std::uint32_t{2}},
                                                  {"qwen2.attention.key_length", std::uint32_t{32}},
                                                  {"qwen2.vocab_size", std::uint32_t{7}}}),
                                  {one("output.weight"), one("blk.0.attn_q.bias")});
  EXPECT_FALSE(untied.tied_embeddings);
  EXPECT_TRUE(untied.qkv_bias);
  EXPECT_FALSE(untied.output_bias);
  EXPECT_EQ(untied.num_kv_heads, 2);
  EXPECT_EQ(untied.head_dim, 32);
  EXPECT_EQ(untied.vocab_size, 7);
}

TEST(ConfigGguf, ReadsTheEndsOfDocumentAndTurn) {
  const ModelConfig config = read(sizes(
      "llama", {{"tokenizer.ggml.eos_token_id", std::uint32_t{1}}, {"tokenizer.ggml.eot_token_id", std::uint32_t{2}}}));
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{1, 2}));
  EXPECT_FALSE(config.bos_token_id.has_value());
}

TEST(ConfigGguf, ReadsRopeScaling) {
  const ModelConfig linear = read(sizes("llama", {{"llama.rope.scale_linear", 4.0f}}));
  EXPECT_EQ(linear.rope.type, RopeType::kLinear);
  EXPECT_EQ(linear.rope.factor, 4.0);
  const ModelConfig none =
      read(sizes("llama", {{"llama.rope.scaling.type", std::string("none")}, {"llama.rope.scaling.factor", 4.0f}}));
  EXPECT_EQ(none.rope, RopeConfig{});
  const Metadata yarn = sizes("llama", {{"llama.rope.scaling.type", std::string("yarn")},
                                        {"llama.rope.scaling.factor", 4.0f},
                                        {"llama.rope.scaling.original_context_length", std::uint32_t{128}},
                                        {"llama.rope.scaling.yarn_beta_fast", 16.0f},
                                        {"llama.rope.scaling.attn_factor", 0.5f},
                                        {"llama.rope.freq_base", 1000.1f}});
  const ModelConfig scaled = read(yarn);
  EXPECT_EQ(scaled.rope.type, RopeType::kYarn);
  EXPECT_EQ(scaled.rope.original_max_positions, 128);
  EXPECT_EQ(scaled.rope.beta_fast, 16.0);
  EXPECT_EQ(scaled.rope.theta, 1000.1) << "the decimal, not its fp32 neighbour";
  EXPECT_NEAR(scaled.rope.attention_factor, 0.5 * (1 + 0.1 * std::log(4.0)), 1e-12);
}

// Divisors as the released models hold them: 1 for fast pairs, 8 for slow ones, a blend in between.
std::vector<float> llama3_divisors() {
  std::vector<float> divisors(8);
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    const double wavelength = 2 * 3.14159265358979 * std::pow(5e5, static_cast<double>(i) / 8);
    const double smooth = (8192 / wavelength - 1) / 3;
    const double factor = smooth >= 1 ? 1 : smooth <= 0 ? 8 : 1 / ((1 - smooth) / 8 + smooth);
    divisors[i] = static_cast<float>(factor);
  }
  return divisors;
}

TEST(ConfigGguf, RecognisesTheDivisorsOfLlama31) {
  const Metadata metadata = sizes("llama", {{"llama.rope.freq_base", 500000.0f}});
  std::vector<float> divisors = llama3_divisors();
  const std::vector<GgufTensorToWrite> tensors = {{"rope_freqs.weight", GgufType::kF32, {8}, bytes_of(divisors)}};
  const ModelConfig config = read(metadata, tensors);
  EXPECT_EQ(config.rope.type, RopeType::kLlama3);
  EXPECT_EQ(config.rope.factor, 8.0);
  EXPECT_EQ(config.rope.original_max_positions, 8192);
  EXPECT_TRUE(is_ignorable_tensor(config, "rope_freqs.weight"));
  divisors[2] = 3;
  EXPECT_MENTIONS(read_error(metadata, tensors), "'rope_freqs.weight' is not the Llama 3.1 scaling by 8 (divisor 2");
  EXPECT_MENTIONS(read_error(metadata, {{"rope_freqs.weight", GgufType::kF32, {1}, bytes_of(kOne)}}),
                  "'rope_freqs.weight' holds 1 divisors, expected 8");
  std::fill(divisors.begin(), divisors.end(), std::nanf(""));
  EXPECT_MENTIONS(read_error(metadata, tensors), "the last divisor of 'rope_freqs.weight' is nan");
}

TEST(ConfigGguf, ReadsGpt2AndBert) {
  const ModelConfig gpt2 = read(sizes("gpt2", {{"gpt2.attention.layer_norm_epsilon", 1e-6f}}));
  EXPECT_EQ(gpt2.family, Family::kGpt2);
  EXPECT_EQ(gpt2.norm_eps, 1e-6);
  EXPECT_EQ(gpt2.activation, Activation::kGeluTanh);
  EXPECT_TRUE(gpt2.tied_embeddings && gpt2.qkv_bias);
  const std::vector<float> types(2 * 64);
  const ModelConfig bert = read(sizes("bert", {{"bert.attention.layer_norm_epsilon", 1e-12f}}),
                                {{"token_types.weight", GgufType::kF32, {2, 64}, bytes_of(types)}});
  EXPECT_EQ(bert.family, Family::kBert);
  EXPECT_EQ(bert.type_vocab_size, 2);
  EXPECT_EQ(bert.norm_eps, 1e-12);
  EXPECT_EQ(bert.position_offset, 0);
  EXPECT_MENTIONS(read_error(sizes("bert")), "token_types.weight");
}

TEST(ConfigGguf, RefusesWhatItCannotRun) {
  const auto with = [](const char* key, GgufValue value) { return sizes("llama", {{key, std::move(value)}}); };
  EXPECT_MENTIONS(read_error(sizes("mamba")), "architecture 'mamba' is not supported; supported are llama");
  EXPECT_MENTIONS(read_error({}), "'general.architecture' is missing");
  EXPECT_MENTIONS(read_error({{"general.architecture", std::string("llama")}}), "'tokenizer.ggml.tokens'");
  EXPECT_MENTIONS(read_error(with("llama.block_count", std::uint32_t{0})), "llama.block_count is 0");
  EXPECT_MENTIONS(read_error(with("llama.block_count", std::string("2"))), "llama.block_count");
  EXPECT_MENTIONS(read_error(with("llama.attention.head_count", std::uint32_t{0})), "llama.attention.head_count is 0");
  EXPECT_MENTIONS(read_error(with("llama.embedding_length", std::uint32_t{4'000'000'000})),
                  "llama.embedding_length is 4000000000");
  EXPECT_MENTIONS(read_error(with("llama.attention.head_count_kv", std::uint32_t{3})),
                  "llama.attention.head_count 4 is not a multiple of llama.attention.head_count_kv 3");
  EXPECT_MENTIONS(read_error(with("llama.attention.value_length", std::uint32_t{8})), "value heads of 8 beside key");
  EXPECT_MENTIONS(read_error(with("llama.rope.dimension_count", std::uint32_t{8})), "rotating 8 of 16 dimensions");
  EXPECT_MENTIONS(read_error(with("llama.rope.scaling.type", std::string("longrope"))),
                  "'longrope' is not one of none");
  EXPECT_MENTIONS(read_error(with("llama.rope.freq_base", std::nanf(""))), "'llama.rope.freq_base' is not a finite");
  EXPECT_MENTIONS(read_error(with("llama.expert_count", std::uint32_t{8})), "mixture-of-experts");
  EXPECT_MENTIONS(read_error(with("llama.attention.sliding_window", std::uint32_t{64})), "sliding-window attention");
}

}  // namespace
}  // namespace gantry::spec
