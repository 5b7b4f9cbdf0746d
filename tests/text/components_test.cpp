// Normalisers and pre-tokenisers against those of the `tokenizers` package.
#include <gtest/gtest.h>

#include "gantry/text/gguf_families.h"
#include "gantry/text/normalizer.h"
#include "gantry/text/pre_tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

using base::Json;

std::vector<std::string> cut(const PreTokenizer& step, const std::string& text) {
  Pieces pieces(text, true);
  step.apply(pieces);
  std::vector<std::string> out;
  for (const auto& range : pieces.ranges) out.emplace_back(pieces.view(range));
  return out;
}

void expect_pieces(const Json& config, const Json& row) {
  const PreTokenizer step(config, "test", false);
  const auto texts = golden_texts();
  ASSERT_EQ(row.at("out").size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const Json& want = row.at("out")[i];
    const auto expected = want.is_null() ? std::vector{texts[i]} : want.get<std::vector<std::string>>();
    EXPECT_EQ(cut(step, texts[i]), expected) << row.at("config").dump() << "\non " << Json(texts[i]).dump();
  }
}

Json golden_rows(const std::string& kind) {
  Json chosen = Json::array();
  for (const Json& row : base::read_json_file(text_data() / "components.json")) {
    if (row.at("kind") == kind) chosen.push_back(row);
  }
  return chosen;
}

TEST(Components, PreTokenizersCutAsTheReferenceDoes) {
  const Json rows = golden_rows("pre_tokenizer");
  EXPECT_GT(rows.size(), 25u);
  for (const Json& row : rows) expect_pieces(row.at("config"), row);
}

TEST(Components, GgufFamiliesCutAsTheirTokenizerFilesDo) {
  const Json rows = golden_rows("family");
  EXPECT_EQ(rows.size(), 6u);
  for (const Json& row : rows) {
    expect_pieces(family_pre_tokenizer(gguf_family(row.at("config").get<std::string>(), "test")), row);
  }
}

TEST(Components, EveryGgufFamilyCompilesAndKeepsEveryByte) {
  for (const char* name :
       {"default",    "gpt-2",        "roberta-bpe",    "smollm",      "falcon", "llama-bpe", "dbrx",
        "glm4",       "qwen2",        "qwen35",         "stablelm2",   "gpt-4o", "tekken",    "bailingmoe",
        "seed-coder", "deepseek-llm", "deepseek-coder", "deepseek-v3", "bloom",  "viking"}) {
    const PreTokenizer step(family_pre_tokenizer(gguf_family(name, "test")), "test", true);
    EXPECT_TRUE(step.spells_bytes()) << name;
    for (const std::string& text : golden_texts()) {
      std::string joined;
      for (const std::string& piece : cut(step, text)) joined += piece;
      EXPECT_EQ(joined, text) << name;
    }
  }
}

TEST(Components, NormalizersRewriteAsTheReferenceDoes) {
  const Json rows = golden_rows("normalizer");
  EXPECT_EQ(rows.size(), 15u);
  const auto texts = golden_texts();
  for (const Json& row : rows) {
    const Normalizer step(row.at("config"), "test");
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const Json& want = row.at("out")[i];
      EXPECT_EQ(step.apply(texts[i]), want.is_null() ? texts[i] : want.get<std::string>())
          << row.at("config").dump() << "\non " << Json(texts[i]).dump();
    }
  }
}

TEST(Components, UnknownAndMalformedStepsAreNamed) {
  const auto pre = [](const char* json) {
    return message_of([&] { PreTokenizer(Json::parse(json), "tokenizer.json", false); });
  };
  EXPECT_EQ(pre(R"({"type": "Magic"})"), "tokenizer.json: pre-tokeniser 'Magic' is not supported");
  EXPECT_NE(pre(R"({"type": 3})").find("'type' has the wrong type"), std::string::npos);
  EXPECT_NE(pre(R"({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"})").find("does not compile"),
            std::string::npos);
  EXPECT_NE(pre(R"({"type": "Split", "pattern": "a", "behavior": "Isolated"})").find("a pattern must be"),
            std::string::npos);
  EXPECT_NE(
      pre(R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"})").find("'Sideways' is unknown"),
      std::string::npos);
  EXPECT_NE(pre(R"({"type": "Sequence", "pretokenizers": 1})").find("must be a list"), std::string::npos);
  EXPECT_NE(pre(R"({"type": "Metaspace", "prepend_scheme": "often"})").find("expected always, first or never"),
            std::string::npos);
  EXPECT_EQ(message_of([] { Normalizer(Json::parse(R"({"type": "Magic"})"), "t.json"); }),
            "t.json: normaliser 'Magic' is not supported");
  EXPECT_NE(
      message_of([] { gguf_family("nothing-like-it", "m.gguf"); }).find("unknown pre-tokeniser 'nothing-like-it'"),
      std::string::npos);
}

TEST(Components, StepsThatBlowATextUpAreStopped) {
  Json steps = Json::array();
  for (int i = 0; i < 40; ++i) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  }
  const Normalizer bomb({{"type", "Sequence"}, {"normalizers", steps}}, "test");
  EXPECT_NE(message_of([&] { bomb.apply("a"); }).find("its steps are damaged"), std::string::npos);
}

}  // namespace
}  // namespace gantry::text
