// The files beside a tokeniser in a Hugging Face folder.
#include <gtest/gtest.h>

#include "gantry/base/file.h"
#include "gantry/text/tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

namespace fs = std::filesystem;
using base::Json;
using Ids = std::vector<std::int32_t>;

class TokenizerConfig : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fresh_folder(testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::copy_file(text_data() / "gpt2" / "tokenizer.json", folder_ / "tokenizer.json");
  }
  void write(const char* name, const Json& json) { base::write_file_atomically(folder_ / name, json.dump()); }
  std::unique_ptr<Tokenizer> load() { return load_tokenizer(folder_); }
  std::string error() {
    return message_of([&] { load(); });
  }
  fs::path folder_;
};

TEST_F(TokenizerConfig, AloneATokenizerJsonNamesNoSpecialIds) {
  const auto tokenizer = load();
  EXPECT_FALSE(tokenizer->bos_id() || tokenizer->eos_id() || tokenizer->pad_id());
  EXPECT_TRUE(tokenizer->stop_ids().empty());
  EXPECT_EQ(tokenizer->chat_template(), "");
}

TEST_F(TokenizerConfig, TokensMayBeStringsOrObjects) {
  write("tokenizer_config.json",
        {{"bos_token", "<|begin|>"}, {"eos_token", {{"content", "<|end|>"}}}, {"pad_token", nullptr}});
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->bos_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_FALSE(tokenizer->pad_id());
}

TEST_F(TokenizerConfig, OtherFilesFillTheGaps) {
  write("special_tokens_map.json", {{"eos_token", "<|end|>"}});
  write("generation_config.json", {{"bos_token_id", 0}, {"eos_token_id", {5, 1, 999999}}, {"pad_token_id", 7}});
  write("config.json", {{"eos_token_id", 6}});
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->bos_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_EQ(tokenizer->pad_id(), 7);
  EXPECT_EQ(tokenizer->stop_ids(), (Ids{1, 5, 6}));  // ids that the tokeniser lacks are left out
}

TEST_F(TokenizerConfig, AddedTokensComeFromThreePlaces) {
  const std::int32_t next = load()->vocab_size();
  write("tokenizer_config.json",
        {{"added_tokens_decoder", {{std::to_string(next), {{"content", "<|extra|>"}, {"special", true}}}}}});
  write("added_tokens.json", {{"<more>", next + 1}});
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->vocab_size(), next + 2);
  EXPECT_EQ(tokenizer->encode("<|extra|><more>"), (Ids{next, next + 1}));
  EXPECT_TRUE(tokenizer->is_special(next));
  EXPECT_FALSE(tokenizer->is_special(next + 1));
}

TEST_F(TokenizerConfig, TemplatesComeFromTheConfigOrTheirOwnFile) {
  write("tokenizer_config.json", {{"chat_template", "one"}});
  EXPECT_EQ(load()->chat_template(), "one");
  write(
      "tokenizer_config.json",
      {{"chat_template", {{{"name", "tool_use"}, {"template", "two"}}, {{"name", "default"}, {"template", "three"}}}}});
  EXPECT_EQ(load()->chat_template(), "three");
  base::write_file_atomically(folder_ / "chat_template.jinja", "four");
  EXPECT_EQ(load()->chat_template(), "four");
}

TEST_F(TokenizerConfig, FaultsNameFileAndField) {
  write("tokenizer_config.json", {{"eos_token", 3}});
  EXPECT_NE(error().find("tokenizer_config.json: 'eos_token' must be a string"), std::string::npos) << error();
  write("tokenizer_config.json", {{"chat_template", 3}});
  EXPECT_NE(error().find("'chat_template' must be a string or a list"), std::string::npos) << error();
  write("tokenizer_config.json", {{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}});
  EXPECT_NE(error().find("has the key 'x', expected a token id"), std::string::npos) << error();
  write("tokenizer_config.json", {{"added_tokens_decoder", {{"5", {{"content", "<new>"}}}}}});
  EXPECT_NE(error().find("which the vocabulary gives to"), std::string::npos) << error();
  write("tokenizer_config.json", Json::array());
  EXPECT_NE(error().find("expected an object"), std::string::npos) << error();
  write("tokenizer_config.json", Json::object());
  write("generation_config.json", {{"eos_token_id", "two"}});
  EXPECT_NE(error().find("generation_config.json: 'eos_token_id' must hold token ids"), std::string::npos) << error();
}

TEST_F(TokenizerConfig, VocabAndMergesEqualTheTokenizerJson) {
  const auto expected = load();
  const Json json = base::read_json_file(folder_ / "tokenizer.json");
  fs::remove(folder_ / "tokenizer.json");
  write("vocab.json", json.at("model").at("vocab"));
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : json.at("model").at("merges")) {
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  }
  base::write_file_atomically(folder_ / "merges.txt", merges);
  for (const char* text : {"Hello world 12", " the planner doesn't  guess\n", "naïve 模型"}) {
    EXPECT_EQ(load()->encode(text), expected->encode(text));
  }
  write("tokenizer_config.json", {{"tokenizer_class", "Qwen2Tokenizer"}});
  EXPECT_EQ(load()->encode("in 2024 WE'D"), load_tokenizer(text_data() / "qwen2")->encode("in 2024 WE'D"));
  base::write_file_atomically(folder_ / "merges.txt", "t h\nbroken\n");
  EXPECT_NE(error().find("merges.txt:2: 'broken' is no merge"), std::string::npos) << error();
}

TEST(LoadTokenizer, PathsWithoutATokenizerSayWhatWasExpected) {
  const auto folder = fresh_folder("nothing");
  EXPECT_NE(message_of([&] { load_tokenizer(folder / "missing"); }).find("no such file or folder"), std::string::npos);
  EXPECT_NE(message_of([&] { load_tokenizer(folder); }).find("expected tokenizer.json, tokenizer.model"),
            std::string::npos);
  base::write_file_atomically(folder / "notes.md", "x");
  EXPECT_NE(message_of([&] { load_tokenizer(folder / "notes.md"); }).find("not a tokeniser"), std::string::npos);
  base::write_file_atomically(folder / "a.gguf", "x");
  base::write_file_atomically(folder / "b.gguf", "x");
  EXPECT_NE(message_of([&] { load_tokenizer(folder); }).find("several GGUF files"), std::string::npos);
}

}  // namespace
}  // namespace gantry::text
