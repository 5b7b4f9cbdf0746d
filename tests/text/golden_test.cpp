// Whole tokenisers against the `tokenizers` and `sentencepiece` packages.
#include <gtest/gtest.h>

#include <algorithm>

#include "gantry/text/detokenizer.h"
#include "gantry/text/tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

using base::Json;
using Ids = std::vector<std::int32_t>;

// The reference puts U+FFFD for every byte of a run of byte tokens that holds an invalid one; texts here are valid.
void expect_golden_file(const Tokenizer& tokenizer, const std::string& name) {
  const Json rows = base::read_json_file(text_data() / name / "golden.json");
  const auto texts = golden_texts();
  ASSERT_EQ(rows.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const Json& row = rows[i];
    SCOPED_TRACE(name + " on " + Json(texts[i]).dump());
    const auto ids = row.at("ids").get<Ids>();
    const auto special = row.value("special", ids);
    EXPECT_EQ(tokenizer.encode(texts[i]), ids);
    EXPECT_EQ(tokenizer.encode(texts[i], {.add_special = true}), special);
    EXPECT_EQ(tokenizer.encode(texts[i], {.parse_special = false}), row.value("plain", ids));
    const auto decoded = row.at("decoded").get<std::string>();
    EXPECT_EQ(tokenizer.decode(special), decoded);
    EXPECT_EQ(tokenizer.decode(special, true), row.value("skipped", decoded));
  }
}

void expect_streams_equal(const Tokenizer& tokenizer) {
  for (const std::string& text : golden_texts()) {
    const Ids ids = tokenizer.encode(text, {.add_special = true});
    for (const bool skip : {false, true}) {
      StreamingDetokenizer stream(tokenizer, skip);
      std::string joined;
      for (const std::int32_t id : ids) joined += stream.push(id);
      joined += stream.flush();
      EXPECT_EQ(joined, tokenizer.decode(ids, skip)) << Json(text).dump();
    }
  }
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, IdsAndTextEqualTheReference) {
  const auto tokenizer = load_tokenizer(text_data() / GetParam());
  expect_golden_file(*tokenizer, GetParam());
  expect_streams_equal(*tokenizer);
}

TEST_P(Golden, SavedAndLoadedAgainGivesTheSame) {
  const auto folder = fresh_folder(std::string("saved-") + GetParam());
  save_tokenizer(*load_tokenizer(text_data() / GetParam()), folder);
  expect_golden_file(*load_tokenizer(folder), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Packages, Golden,
                         testing::Values("gpt2", "llama3", "qwen2", "roberta", "llama2", "clip", "unigram",
                                         "unigram-first", "bert", "word-level"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GoldenFiles, VocabTxtEqualsTheTokenizerJsonMadeFromIt) {
  const auto tokenizer = load_tokenizer(text_data() / "bert-vocab");
  expect_golden_file(*tokenizer, "bert");
  EXPECT_EQ(tokenizer->pad_id(), tokenizer->id_of("[PAD]"));
}

class SentencePieceGolden : public testing::TestWithParam<const char*> {
 protected:
  static void expect_ids(const Tokenizer& tokenizer) {
    for (const Json& row : base::read_json_file(text_data() / GetParam() / "golden.json")) {
      EXPECT_EQ(tokenizer.encode(row.at("text").get<std::string>(), {.parse_special = false}), row.at("ids").get<Ids>())
          << GetParam() << " on " << row.at("text").dump();
    }
  }
};

TEST_P(SentencePieceGolden, IdsEqualTheReference) {
  const auto tokenizer = load_tokenizer(text_data() / GetParam());
  expect_ids(*tokenizer);
  expect_streams_equal(*tokenizer);
}

TEST_P(SentencePieceGolden, SavedAsTokenizerJsonGivesTheSame) {
  const auto folder = fresh_folder(std::string("saved-") + GetParam());
  save_tokenizer(*load_tokenizer(text_data() / GetParam()), folder);
  expect_ids(*load_tokenizer(folder));
}

INSTANTIATE_TEST_SUITE_P(Packages, SentencePieceGolden,
                         testing::Values("sp-bpe", "sp-bpe-unk", "sp-unigram", "sp-unigram-bytes"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace gantry::text
