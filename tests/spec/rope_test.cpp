#include "gantry/spec/rope.h"

#include <gtest/gtest.h>

#include "gantry/base/json.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

// Goldens by tools/make_rope_golden.py (transformers). They are fp32, so a few units in the last place may differ.
TEST(RopeFrequencies, EqualTheGoldens) {
  const auto cases = base::read_json_file(GANTRY_SOURCE_DIR "/tests/data/spec/rope.json");
  ASSERT_GE(cases.size(), 16u);
  for (const auto& golden : cases) {
    const auto name = golden.at("name").get<std::string>();
    const ModelConfig config = config_from_hf_text(golden.at("config").dump(), name);
    const auto wanted = golden.at("inverse").get<std::vector<float>>();
    const RopeFrequencies found = rope_frequencies(config, golden.at("sequence_length").get<std::int64_t>());
    ASSERT_EQ(found.inverse.size(), wanted.size()) << name;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_NEAR(found.inverse[i], wanted[i], 1e-6 * wanted[i]) << name << " pair " << i;
    }
    EXPECT_NEAR(found.attention_factor, golden.at("attention_factor").get<float>(), 1e-6) << name;
  }
}

TEST(RopeFrequencies, OnlyDynamicDependsOnTheLength) {
  for (const RopeType type : {RopeType::kDefault, RopeType::kLinear, RopeType::kYarn, RopeType::kLlama3}) {
    ModelConfig config = testing::llama();
    config.rope.type = type;
    config.rope.factor = 2;
    EXPECT_EQ(rope_frequencies(config, 8).inverse, rope_frequencies(config, 100000).inverse);
  }
  ModelConfig dynamic = testing::llama();
  dynamic.rope.type = RopeType::kDynamic;
  dynamic.rope.factor = 2;
  EXPECT_EQ(rope_frequencies(dynamic, 8).inverse, rope_frequencies(dynamic, 512).inverse);
  EXPECT_GT(rope_frequencies(dynamic, 512).inverse[3], rope_frequencies(dynamic, 513).inverse[3]);
}

}  // namespace
}  // namespace gantry::spec
