// What load_model and perplexity refuse, and how they say it.
#include "gantry/models/load.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "gantry/formats/gguf.h"
#include "gantry/formats/safetensors.h"
#include "gantry/models/perplexity.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "tests/test_support.h"

namespace gantry::models {
namespace {

namespace fs = std::filesystem;
using tests::input_error;
using tests::write_raw;

/// config.json of a tiny Llama; `more` begins with a comma and wins.
std::string llama_text(const std::string& more = "") {
  return R"({"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "tie_word_embeddings": true, "max_position_embeddings": 32)" +
         more + "}";
}

spec::ModelConfig llama() { return spec::config_from_hf_text(llama_text(), "test"); }

/// A folder with a tiny Llama whose tensors a test may change before it is written.
class LoadModel : public ::testing::Test {
 protected:
  LoadModel() {
    for (const spec::TensorSpec& spec : spec::tensor_table(llama())) tensors_[spec.name] = at::full(spec.shape, 0.5F);
  }
  void write(const std::string& more = "") {
    write_raw(dir() / "config.json", llama_text(more));
    std::vector<formats::TensorToWrite> list;
    for (const auto& [name, value] : tensors_) {
      list.push_back({.name = name,
                      .dtype = tensor::to_file_dtype(value.scalar_type()),
                      .shape = value.sizes().vec(),
                      .data = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
    }
    formats::write_safetensors(dir() / "model.safetensors", list);
  }
  std::string error() const {
    return input_error([&] { load_model(dir()); });
  }
  const fs::path& dir() const { return folder_.path(); }

  tests::TemporaryFolder folder_;
  std::map<std::string, at::Tensor> tensors_;
};

constexpr const char* kDown = "model.layers.0.mlp.down_proj.weight";

TEST_F(LoadModel, TakesWhatFits) {
  write();
  const auto model = load_model(dir());
  EXPECT_FALSE(model->is_training());
  EXPECT_EQ(model->parameter_map().at(kDown).sizes(), (std::vector<std::int64_t>{16, 24}));
}

TEST_F(LoadModel, NamesAMissingTensor) {
  tensors_.erase(kDown);
  write();
  EXPECT_MENTIONS(error(),
                  dir().string() + ": tensor '" + kDown + "' is missing; the file does not fit its config.json");
}

TEST_F(LoadModel, NamesBothShapes) {
  tensors_[kDown] = at::ones({24, 16});
  write();
  EXPECT_MENTIONS(error(), std::string("'") + kDown + "' has shape [24, 16], but the configuration asks for [16, 24]");
}

TEST_F(LoadModel, NamesTensorsThatAreLeftOver) {
  for (int i = 0; i < 12; ++i) tensors_["extra." + std::to_string(i)] = at::ones({2});
  write();
  EXPECT_MENTIONS(error(), "12 tensors do not belong to a model of this configuration: extra.0, extra.1, extra.10");
  EXPECT_MENTIONS(error(), ", ...");
}

TEST_F(LoadModel, RefusesWeightsThatAreIntegers) {
  tensors_[kDown] = at::ones({16, 24}, at::kInt);
  write();
  EXPECT_MENTIONS(error(), std::string("'") + kDown + "' holds I32, expected floating-point weights");
}

TEST_F(LoadModel, RefusesWeightsThatAreNotFiniteUnlessAskedNotToLook) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    tensors_[kDown][3][5] = bad;
    write();
    EXPECT_MENTIONS(error(), std::string("'") + kDown + "' holds NaN or infinity");
    EXPECT_NO_THROW(load_model(dir(), {.check_finite = false}));
  }
}

// The model would take 2^46 bytes, which no machine gives: an InputError shows that the headers were compared first.
TEST_F(LoadModel, ComparesShapesBeforeItAllocatesTheModel) {
  write(R"(, "hidden_size": 1048576, "head_dim": 64, "vocab_size": 16777216)");
  EXPECT_MENTIONS(error(),
                  "'model.embed_tokens.weight' has shape [40, 16], but the configuration asks for "
                  "[16777216, 1048576]");
  write(R"(, "num_hidden_layers": 16384)");
  EXPECT_MENTIONS(error(), "'model.layers.1.input_layernorm.weight' is missing");
}

TEST_F(LoadModel, SaysWhatAPathShouldBe) {
  EXPECT_MENTIONS(input_error([] { load_model("/nonexistent/model"); }),
                  "/nonexistent/model: no such model; give a folder");
  write_raw(dir() / "weights.bin", "x");
  EXPECT_MENTIONS(input_error([&] { load_model(dir() / "weights.bin"); }), "expected a model folder or a .gguf file");
  EXPECT_MENTIONS(error(), "expected config.json or exactly one .gguf file in this folder, found 0");
  write_raw(dir() / "a.gguf", "x");
  write_raw(dir() / "b.gguf", "x");
  EXPECT_MENTIONS(error(), "found 2 .gguf files");
  fs::remove(dir() / "b.gguf");
  EXPECT_MENTIONS(error(), "a.gguf");
}

class LoadGguf : public ::testing::Test {
 protected:
  // Writes the tiny Llama; returns what loading it says.
  std::string error(const std::map<std::string, std::vector<std::int64_t>>& other_shapes,
                    const std::string& without = "") {
    const std::vector<std::pair<std::string, formats::GgufValue>> metadata{
        {"general.architecture", std::string("llama")}, {"llama.vocab_size", std::uint32_t{40}},
        {"llama.embedding_length", std::uint32_t{16}},  {"llama.feed_forward_length", std::uint32_t{24}},
        {"llama.block_count", std::uint32_t{1}},        {"llama.attention.head_count", std::uint32_t{2}},
        {"llama.context_length", std::uint32_t{32}}};
    std::vector<at::Tensor> alive;
    std::vector<formats::GgufTensorToWrite> list;
    for (const spec::TensorSpec& spec : spec::tensor_table(llama())) {
      if (spec.gguf_name == without) continue;
      const auto other = other_shapes.find(spec.gguf_name);
      alive.push_back(at::ones(other == other_shapes.end() ? spec.shape : other->second));
      list.push_back({.name = spec.gguf_name,
                      .type = formats::GgufType::kF32,
                      .shape = alive.back().sizes().vec(),
                      .data = {static_cast<const std::byte*>(alive.back().const_data_ptr()), alive.back().nbytes()}});
    }
    formats::write_gguf(folder_ / "m.gguf", metadata, list);
    return input_error([&] { load_model(folder_ / "m.gguf"); });
  }
  tests::TemporaryFolder folder_;
};

TEST_F(LoadGguf, NamesMissingTensorsAndOtherShapes) {
  EXPECT_MENTIONS(error({}, "blk.0.ffn_down.weight"),
                  std::string("m.gguf: tensor 'blk.0.ffn_down.weight' (") + kDown + ") is missing");
  EXPECT_MENTIONS(error({{"blk.0.ffn_down.weight", {24, 16}}}),
                  "'blk.0.ffn_down.weight' has shape [24, 16], but the configuration asks for [16, 24]");
}

std::shared_ptr<LanguageModel> random_model(const spec::ModelConfig& config) {
  auto model = make_model(config);
  initialize_parameters(*model, 1);
  model->eval();
  return model;
}

TEST(Perplexity, RefusesWhatItCannotMeasure) {
  const auto model = random_model(llama());
  const std::vector<std::int32_t> ids(100, 7);
  const auto error = [&](std::span<const std::int32_t> text, PerplexityOptions options) {
    return input_error([&] { perplexity(*model, text, options); });
  };
  EXPECT_MENTIONS(error(ids, {.window = 1}), "window 1 must be at least 2 and batch 1 at least 1");
  EXPECT_MENTIONS(error(ids, {.window = 8, .batch = 0}), "batch 0 at least 1");
  EXPECT_MENTIONS(error(ids, {.window = 33}), "window 33 exceeds the model's 32 positions");
  EXPECT_MENTIONS(error(std::span(ids).first(1), {.window = 8}), "the text has 1 tokens; perplexity needs at least 2");
  EXPECT_MENTIONS(error({}, {.window = 8}), "the text has 0 tokens");
  for (const std::int32_t bad : {-1, 40}) {
    std::vector<std::int32_t> damaged = ids;
    damaged[5] = bad;
    EXPECT_MENTIONS(error(damaged, {.window = 8}), std::to_string(bad));
  }
}

TEST(Perplexity, RefusesEncoders) {
  const auto model = random_model(spec::config_from_hf_text(
      R"({"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 24, "max_position_embeddings": 32})",
      "test"));
  const std::vector<std::int32_t> ids(10, 7);
  EXPECT_MENTIONS(input_error([&] { perplexity(*model, ids, {.window = 8}); }),
                  "perplexity needs a causal model; bert is an encoder");
}

TEST(Perplexity, StopsWhenToldAndCoversWhatWasDone) {
  const auto model = random_model(llama());
  const std::vector<std::int32_t> ids(100, 7);
  const auto part = perplexity(*model, ids, {.window = 10, .batch = 2}, [](std::int64_t done) { return done < 4; });
  EXPECT_EQ(part.window_nll.size(), 4u);
  EXPECT_EQ(part.tokens, 36);
  const auto same = perplexity(*model, std::span(ids).first(40), {.window = 10, .batch = 2});
  EXPECT_EQ(part.perplexity, same.perplexity);
}

}  // namespace
}  // namespace gantry::models
