#include "gantry/text/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "gantry/base/interrupt.h"
#include "gantry/text/dataset_build.h"
#include "gantry/text/dataset_shard.h"
#include "tests/text/byte_tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

std::vector<std::int32_t> ids(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<std::uint8_t>(c));
  return tokens;
}

std::vector<std::int32_t> all_tokens(const TokenDataset& dataset) {
  std::vector<std::int32_t> tokens(dataset.token_count());
  dataset.copy_tokens(0, tokens);
  return tokens;
}

std::vector<std::int32_t> document(const TokenDataset& dataset, std::uint64_t index) {
  std::vector<std::int32_t> tokens(dataset.document_start(index + 1) - dataset.document_start(index));
  dataset.copy_tokens(dataset.document_start(index), tokens);
  return tokens;
}

class DatasetTest : public ::testing::Test {
 protected:
  TokenDataset build(const std::vector<std::string>& sources, const DatasetOptions& options = {}) {
    return TokenDataset::build(sources, *tokenizer_, folder_ / "cache", options);
  }
  /// The only file of the cache with this ending.
  std::filesystem::path cache_file(const std::string& ending) {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache")) {
      if (entry.path().extension() == ending) found = entry.path();
    }
    return found;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(DatasetTest, DocumentsBecomeTokensWithAnEndEach) {
  const std::string jsonl =
      folder_.write("b.jsonl", "{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \"two</s>\"}\n");
  const std::string text = folder_.write("a.txt", "zé");
  const TokenDataset dataset = build({text, jsonl});
  EXPECT_FALSE(dataset.from_cache());
  ASSERT_EQ(dataset.document_count(), 3u) << "the empty text is no document";
  auto expected = ids("zé");
  expected.push_back(kEos);
  EXPECT_EQ(document(dataset, 0), expected);
  expected = ids("two</s>");  // spelled in the text, hence no special token
  expected.push_back(kEos);
  EXPECT_EQ(document(dataset, 2), expected);
  EXPECT_EQ(dataset.token_count(), 4u + 4 + 8);
  EXPECT_FALSE(dataset.masked());
  EXPECT_TRUE(dataset.trained(0));
  for (std::uint64_t d = 0; d < 3; ++d) {
    for (std::uint64_t t = dataset.document_start(d); t < dataset.document_start(d + 1); ++t) {
      EXPECT_EQ(dataset.document_of(t), d);
    }
  }
}

TEST_F(DatasetTest, OptionsShapeTheTokens) {
  const std::string text = folder_.write("a.txt", "x</s>");
  EXPECT_EQ(build({text}, {.parse_special = true, .add_eos = false}).token_count(), 2u);
  EXPECT_EQ(build({text}, {.add_eos = false}).token_count(), 5u);
}

TEST_F(DatasetTest, TheCacheIsUsedUntilSomethingChanges) {
  const std::string text = folder_.write("a.txt", "hello");
  EXPECT_FALSE(build({text}).from_cache());
  EXPECT_TRUE(build({text}).from_cache());
  EXPECT_TRUE(build({text}, {.sequence_length = 7, .seed = 5}).from_cache()) << "the order does not touch the tokens";
  EXPECT_FALSE(build({text}, {.add_eos = false}).from_cache());
  EXPECT_TRUE(build({text}).from_cache());
  folder_.write("a.txt", "hello!");
  const TokenDataset changed = build({text});
  EXPECT_FALSE(changed.from_cache());
  EXPECT_EQ(changed.token_count(), 7u);
  const auto other = byte_tokenizer("", 1);
  EXPECT_FALSE(TokenDataset::build({text}, *other, folder_ / "cache", {}).from_cache());
  const auto templated = byte_tokenizer("{{ messages }}");
  EXPECT_FALSE(TokenDataset::build({text}, *templated, folder_ / "cache", {}).from_cache());
}

TEST_F(DatasetTest, ADamagedCacheIsMadeAnew) {
  const std::string text = folder_.write("a.txt", std::string(5000, 'q'));
  const auto expected = all_tokens(build({text}));
  const std::vector<std::function<void()>> damages = {
      [&] { std::filesystem::resize_file(cache_file(".tokens"), 100); },
      [&] { std::filesystem::resize_file(cache_file(".tokens"), 0); },
      [&] { std::filesystem::remove(cache_file(".tokens")); },
      [&] {
        std::string bytes = base::read_text_file(cache_file(".tokens"));
        bytes[3000] ^= 1;
        base::write_file_atomically(cache_file(".tokens"), bytes);
      },
      [&] { base::write_file_atomically(cache_file(".json"), "{"); },
      [&] { base::write_file_atomically(cache_file(".json"), R"({"shards": 1, "tokens": 7, "documents": 1})"); },
      [&] { base::write_file_atomically(cache_file(".json"), R"({"shards": -1, "tokens": 7, "documents": 1})"); },
  };
  for (std::size_t i = 0; i < damages.size(); ++i) {
    damages[i]();
    const TokenDataset rebuilt = build({text});
    EXPECT_FALSE(rebuilt.from_cache()) << i;
    EXPECT_EQ(all_tokens(rebuilt), expected) << i;
    EXPECT_TRUE(build({text}).from_cache()) << i;
  }
}

TEST_F(DatasetTest, WideVocabulariesTakeFourBytes) {
  const std::string text = folder_.write("a.txt", "hello");
  const auto wide = byte_tokenizer("", 66000);
  const TokenDataset dataset = TokenDataset::build({text}, *wide, folder_ / "cache", {});
  EXPECT_EQ(std::filesystem::file_size(cache_file(".tokens")), 64 + 2 * 8 + 6 * 4u);
  EXPECT_EQ(document(dataset, 0), (std::vector<std::int32_t>{'h', 'e', 'l', 'l', 'o', kEos}));
}

TEST_F(DatasetTest, SeveralShardsReadAsOne) {
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += "{\"text\": \"document number " + std::to_string(i) + "\"}\n";
  const std::string path = folder_.write("x.jsonl", lines);
  const auto whole = all_tokens(build({path}));
  const auto files = find_sources({path});
  const std::uint64_t identity = dataset_identity(files, *tokenizer_, {});
  const auto manifest = tokenize_sources(files, *tokenizer_, folder_ / "cache", identity, {}, {}, 300);
  EXPECT_GT(manifest.shards, 10u);
  const TokenDataset dataset = build({path});
  EXPECT_TRUE(dataset.from_cache());
  EXPECT_EQ(all_tokens(dataset), whole);
  ASSERT_EQ(dataset.document_count(), 200u);
  for (std::uint64_t d = 0; d < 200; ++d) {
    auto expected = ids("document number " + std::to_string(d));
    expected.push_back(kEos);
    ASSERT_EQ(document(dataset, d), expected);
    ASSERT_EQ(dataset.document_of(dataset.document_start(d)), d);
    ASSERT_EQ(dataset.document_of(dataset.document_start(d + 1) - 1), d);
  }
}

TEST_F(DatasetTest, OnlyTheAssistantCountsInConversations) {
  tokenizer_ = byte_tokenizer(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}");
  const std::string path = folder_.write("x.jsonl",
                                         "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": "
                                         "\"assistant\", \"content\": \"c\xc3\xa9\"}]}\n"
                                         "{\"text\": \"plain\"}\n");
  const TokenDataset dataset = build({path});
  EXPECT_TRUE(dataset.masked());
  EXPECT_EQ(document(dataset, 0), (std::vector<std::int32_t>{258, 'a', 'b', 260, 259, 'c', 0xc3, 0xa9, 260}));
  std::string mask;
  for (std::uint64_t t = 0; t < dataset.token_count(); ++t) mask += dataset.trained(t) ? '1' : '0';
  EXPECT_EQ(mask,
            "000001111"
            "111111");
  const TokenDataset unmasked = build({path}, {.assistant_only = false});
  EXPECT_FALSE(unmasked.masked());
  EXPECT_EQ(all_tokens(unmasked), all_tokens(dataset));
}

TEST_F(DatasetTest, ConversationsNeedATemplateAndSoundMessages) {
  const std::string path = folder_.write("x.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}\n");
  EXPECT_EQ(message_of([&] { build({path}); }),
            path + ":1: a conversation, but the model has no chat template; use lines with 'text'");
  tokenizer_ = byte_tokenizer("{{ raise_exception('never') }}");
  EXPECT_EQ(message_of([&] { build({path}); }),
            path + ":1: chat template, line 1: the template refuses this conversation: never");
}

TEST_F(DatasetTest, EmptyDataIsNamed) {
  const std::string empty = folder_.write("texts/empty.txt", "");
  EXPECT_EQ(message_of([&] { build({empty}); }), empty + ": this file is empty");
  const std::string other = folder_.write("texts/other.txt", "x");
  EXPECT_EQ(build({(folder_ / "texts").string()}).document_count(), 1u) << "in a folder, empty files are left out";
  const std::string rows = folder_.write("x.jsonl", "{\"text\": \"\"}\n");
  EXPECT_EQ(message_of([&] { build({rows}); }), rows + ": no text found, nothing to train on");
}

TEST_F(DatasetTest, ACacheThatCannotBeWrittenIsNamed) {
  const std::string text = folder_.write("a.txt", "hello");
  const std::string message =
      message_of<base::Error>([&] { TokenDataset::build({text}, *tokenizer_, text + "/cache", {}); });
  EXPECT_NE(message.find(text), std::string::npos) << message;
}

TEST_F(DatasetTest, AnInterruptLeavesNoCacheBehind) {
  const std::string text = folder_.write("a.txt", "hello");
  base::set_interrupted(true);
  EXPECT_THROW(build({text}), base::Interrupted);
  base::set_interrupted(false);
  EXPECT_FALSE(build({text}).from_cache());
}

TEST_F(DatasetTest, ProgressReachesTheSum) {
  const std::string a = folder_.write("a.txt", "hello");
  std::uint64_t last = 0;
  std::uint64_t sum = 0;
  TokenDataset::build({a}, *tokenizer_, folder_ / "cache", {}, [&](std::uint64_t done, std::uint64_t total) {
    last = done;
    sum = total;
  });
  EXPECT_EQ(last, 5u);
  EXPECT_EQ(sum, 5u);
}

TEST_F(DatasetTest, TheTailIsHeldOutAtADocumentStart) {
  std::string lines;
  for (int i = 0; i < 100; ++i) lines += "{\"text\": \"123456789\"}\n";  // 10 tokens each
  const TokenDataset dataset = build({folder_.write("x.jsonl", lines)});
  const DatasetOptions options{.validation_fraction = 0.123};
  const TokenRange train = dataset.range(Split::kTrain, options);
  const TokenRange held = dataset.range(Split::kValidation, options);
  EXPECT_EQ(train.end_token, 880u);
  EXPECT_EQ(held.begin_token, 880u);
  EXPECT_EQ(held.end_token, 1000u);
  EXPECT_EQ(train.end_document, 88u);
  EXPECT_EQ(held.begin_document, 88u);
  EXPECT_EQ(dataset.range(Split::kTrain, {}).tokens(), 1000u);
  EXPECT_NE(message_of([&] { dataset.range(Split::kValidation, {}); }).find("no tokens are held out"),
            std::string::npos);
}

TEST_F(DatasetTest, ASingleDocumentIsCutWherePackingAllows) {
  const TokenDataset dataset = build({folder_.write("a.txt", std::string(999, 'x'))});
  const DatasetOptions packed{.validation_fraction = 0.1};
  EXPECT_EQ(dataset.range(Split::kTrain, packed).tokens(), 900u);
  EXPECT_EQ(dataset.range(Split::kValidation, packed).tokens(), 100u);
  const DatasetOptions rows{.pack = false, .validation_fraction = 0.1};
  EXPECT_NE(message_of([&] { dataset.range(Split::kTrain, rows); }).find("nothing is left to train on"),
            std::string::npos);
}

TEST_F(DatasetTest, OptionsOutOfRangeAreNamed) {
  const std::string text = folder_.write("a.txt", "hello");
  EXPECT_EQ(message_of([&] { build({text}, {.sequence_length = 0}); }),
            "sequence_length must be between 1 and 16777216, found 0");
  EXPECT_EQ(message_of([&] { build({text}, {.validation_fraction = 1.5}); }),
            "validation_fraction must be between 0 and 0.9, found 1.5");
}

}  // namespace
}  // namespace gantry::text
