#include "gantry/spec/tensor_table.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "gantry/formats/safetensors.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

Shapes table_shapes(const ModelConfig& config) {
  Shapes shapes;
  for (const TensorSpec& tensor : tensor_table(config)) {
    EXPECT_TRUE(shapes.emplace(tensor.name, tensor.shape).second) << tensor.name << " occurs twice";
  }
  return shapes;
}

class TensorTableOfModel : public ::testing::TestWithParam<const char*> {};

TEST_P(TensorTableOfModel, EqualsTheFile) {
  const auto folder = testing::shared_model(GetParam());
  if (!folder) GTEST_SKIP() << "needs the shared data folder";
  const ModelConfig config = config_from_hf(*folder);
  const auto model = formats::SafetensorsModel::open(*folder);
  Shapes file;
  std::int64_t elements = 0;
  for (const auto& tensor : model.tensors()) {
    if (is_ignorable_tensor(config, tensor.name)) continue;
    file[tensor.name] = tensor.shape;
    elements += formats::numel(tensor);
  }
  EXPECT_EQ(table_shapes(config), file);
  EXPECT_EQ(parameter_count(config), elements);
}

INSTANTIATE_TEST_SUITE_P(Tiny, TensorTableOfModel,
                         ::testing::Values("tiny-llama", "tiny-llama-tied", "tiny-gpt2", "tiny-bert"),
                         [](const auto& name) {
                           std::string text = name.param;
                           for (char& letter : text) letter = letter == '-' ? '_' : letter;
                           return text;
                         });

TEST(TensorTable, CountsTheParametersOfKnownModels) {
  const auto count = [](const char* text) { return parameter_count(config_from_hf_text(text, "test")); };
  EXPECT_EQ(count(R"({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12})"),
            124439808);
  EXPECT_EQ(count(R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336})"),
            8030261248);
  EXPECT_EQ(count(R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": true})"),
            494032768);
  EXPECT_EQ(count(R"({"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072})"),
            109514298);
  EXPECT_EQ(count(R"({"model_type": "roberta", "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1,
    "pad_token_id": 1})"),
            124697433);
}

TEST(TensorTable, KeepsFusableProjectionsTogether) {
  const auto table = tensor_table(testing::llama());
  for (std::size_t i = 0; i + 2 < table.size(); ++i) {
    if (!table[i].name.ends_with("q_proj.weight")) continue;
    EXPECT_TRUE(table[i + 1].name.ends_with("k_proj.weight"));
    EXPECT_TRUE(table[i + 2].name.ends_with("v_proj.weight"));
  }
}

TEST(TensorTable, ShardsAxesThatExist) {
  for (const ModelConfig& config : {testing::llama(), testing::gpt2(), testing::bert(), testing::roberta()}) {
    std::set<int> layers;
    int layer = -1;
    for (const TensorSpec& tensor : tensor_table(config)) {
      SCOPED_TRACE(tensor.name);
      EXPECT_EQ(tensor.shard == ShardRule::kReplicate, tensor.shard_axis == -1);
      EXPECT_LT(tensor.shard_axis, static_cast<int>(tensor.shape.size()));
      EXPECT_EQ(tensor.weight_decay, tensor.shape.size() == 2) << "matrices decay, vectors do not";
      if (tensor.layer >= 0) {
        EXPECT_GE(tensor.layer, layer) << "layers come in order";
        layer = tensor.layer;
        layers.insert(layer);
      }
    }
    EXPECT_EQ(layers.size(), static_cast<std::size_t>(config.num_layers));
  }
}

TEST(TensorTable, UnpermutesOnlyTheRotatedProjectionsOfLlama) {
  std::set<std::string> permuted;
  for (const TensorSpec& tensor : tensor_table(testing::llama())) {
    if (tensor.gguf_transform == GgufTransform::kUnpermuteRope && tensor.layer == 0) permuted.insert(tensor.gguf_name);
  }
  EXPECT_EQ(permuted, (std::set<std::string>{"blk.0.attn_q.weight", "blk.0.attn_k.weight"}));
  ModelConfig qwen = testing::llama();
  qwen.model_type = "qwen2";
  for (const TensorSpec& tensor : tensor_table(qwen)) EXPECT_EQ(tensor.gguf_transform, GgufTransform::kNone);
}

TEST(TensorTable, IgnoresOnlyTensorsWithoutInformation) {
  const ModelConfig gpt2 = testing::gpt2();
  EXPECT_TRUE(is_ignorable_tensor(gpt2, "transformer.h.0.attn.bias"));
  EXPECT_FALSE(is_ignorable_tensor(gpt2, "transformer.h.0.attn.c_attn.bias"));
  EXPECT_TRUE(is_ignorable_tensor(gpt2, "lm_head.weight"));
  EXPECT_FALSE(is_ignorable_tensor(testing::llama(), "lm_head.weight")) << "not tied";
  EXPECT_TRUE(is_ignorable_tensor(testing::llama(), "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_TRUE(is_ignorable_tensor(testing::bert(), "bert.pooler.dense.weight"));
  EXPECT_TRUE(is_ignorable_tensor(testing::bert(), "cls.predictions.decoder.bias"));
  EXPECT_FALSE(is_ignorable_tensor(testing::bert(), "cls.predictions.bias"));
  for (const ModelConfig& config : {testing::llama(), gpt2, testing::bert(), testing::roberta()}) {
    for (const TensorSpec& tensor : tensor_table(config)) {
      EXPECT_FALSE(is_ignorable_tensor(config, tensor.name)) << tensor.name;
    }
  }
}

}  // namespace
}  // namespace gantry::spec
