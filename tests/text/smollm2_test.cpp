// The real SmolLM2 tokeniser out of its GGUF against 265 golden strings.
#include <gtest/gtest.h>

#include <fstream>

#include "gantry/base/env.h"
#include "gantry/base/file.h"
#include "gantry/text/detokenizer.h"
#include "gantry/text/tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    const auto named = base::env("GANTRY_SMOLLM2_GGUF");
    const fs::path model =
        named ? fs::path(*named) : fs::path(GANTRY_SOURCE_DIR) / "build" / "model" / "SmolLM2-135M-Instruct.Q4_1.gguf";
    const auto data = base::data_dir(GANTRY_SOURCE_DIR);
    if (!fs::exists(model)) GTEST_SKIP() << "no " << model << "; run tools/fetch_model.py or set GANTRY_SMOLLM2_GGUF";
    if (!data || !fs::exists(*data / "llm" / "smollm2-golden")) GTEST_SKIP() << "no goldens; set GANTRY_DATA";
    data_ = *data;
    tokenizer_ = load_tokenizer(model);
  }

  std::vector<base::Json> rows() const {
    std::ifstream file(data_ / "llm" / "smollm2-golden" / "tokens.jsonl");
    std::vector<base::Json> rows;
    for (std::string line; std::getline(file, line);) rows.push_back(base::parse_json(line, "tokens.jsonl"));
    return rows;
  }

  void expect_golden(const Tokenizer& tokenizer) const {
    const auto golden = rows();
    EXPECT_EQ(golden.size(), 265u);
    for (const base::Json& row : golden) {
      const auto text = row.at("text").get<std::string>();
      const auto ids = row.at("ids").get<Ids>();
      SCOPED_TRACE(row.at("text").dump());
      EXPECT_EQ(tokenizer.encode(text), ids);
      EXPECT_EQ(tokenizer.encode(text, {.parse_special = false}), row.value("ids_without_special", ids));
      const auto decoded = row.at("decoded").get<std::string>();
      EXPECT_EQ(tokenizer.decode(ids), decoded);
      EXPECT_EQ(tokenizer.decode(ids, true), row.value("decoded_skip_special", decoded));
    }
  }

  fs::path data_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(SmolLm2, EveryGoldenStringIsEqual) { expect_golden(*tokenizer_); }

TEST_F(SmolLm2, SavedInHuggingFaceLayoutItIsTheSame) {
  const fs::path folder = fresh_folder("saved-smollm2");
  save_tokenizer(*tokenizer_, folder);
  const auto again = load_tokenizer(folder);
  expect_golden(*again);
  EXPECT_EQ(again->chat_template(), tokenizer_->chat_template());
  EXPECT_EQ(again->eos_id(), tokenizer_->eos_id());
  EXPECT_EQ(again->stop_ids(), tokenizer_->stop_ids());
  EXPECT_EQ(again->pad_id(), tokenizer_->pad_id());
}

TEST_F(SmolLm2, MetadataIsRead) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->bos_id(), 1);
  EXPECT_EQ(tokenizer_->eos_id(), 2);
  EXPECT_EQ(tokenizer_->stop_ids(), (Ids{2, 0}));
  EXPECT_TRUE(tokenizer_->is_special(16));
  EXPECT_FALSE(tokenizer_->is_special(17));
  EXPECT_EQ(tokenizer_->token_text(17), "!");
  EXPECT_NE(tokenizer_->chat_template().find("<|im_start|>"), std::string::npos);
  EXPECT_TRUE(tokenizer_->prefix_ids().empty());
}

TEST_F(SmolLm2, WikiTextHasTheGoldenNumberOfTokens) {
  const auto text = base::read_text_file(data_ / "text" / "wikitext2-test.txt");
  const Ids ids = tokenizer_->encode(text);
  EXPECT_EQ(ids.size(), 312144u);  // named in the goldens' README
  EXPECT_EQ(tokenizer_->decode(ids), text);
}

}  // namespace
}  // namespace gantry::text
