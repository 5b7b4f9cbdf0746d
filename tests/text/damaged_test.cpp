// Damaged and forged tokeniser files: an InputError that says what is wrong, never a crash.
#include <gtest/gtest.h>

#include <limits>

#include "gantry/base/file.h"
#include "gantry/base/random.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_json.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

using base::Json;

void use(const std::string& text) {
  const Tokenizer tokenizer(parts_from_tokenizer_json(base::parse_json(text, "t.json"), "t.json"));
  tokenizer.decode(tokenizer.encode("the planner <|end|> ab\xff\n", {.add_special = true}));
}

void use_model(const std::string& bytes) {
  const Tokenizer tokenizer(parts_from_sentencepiece(parse_sentencepiece(bytes, "t.model"), {.add_bos = true}));
  tokenizer.decode(tokenizer.encode("the planner </s> ab\xff\n", {.add_special = true}));
}

// Every message must come from our own checks.
template <class Use>
void damage(const std::string& good, Use use_it, const char* source, int rounds) {
  base::CounterRandom random(17);
  for (int i = 0; i < rounds; ++i) {
    std::string bad = good;
    if (i % 3 == 0) bad.resize(random.below(bad.size()));
    for (int k = 0; k < 2 && !bad.empty(); ++k)
      bad[random.below(bad.size())] ^= static_cast<char>(1u << random.below(8));
    try {
      use_it(bad);
    } catch (const base::InputError& error) {
      EXPECT_FALSE(std::string(error.what()).empty()) << source;
    }
  }
}

TEST(Damaged, BitFlipsAndTruncationsOfTokenizerJson) {
  for (const char* name : {"llama3", "llama2", "unigram", "bert"}) {
    Json json = base::read_json_file(text_data() / name / "tokenizer.json");
    damage(json.dump(), use, "t.json", 150);
  }
}

TEST(Damaged, BitFlipsAndTruncationsOfSentencePieceModels) {
  for (const char* name : {"sp-bpe", "sp-unigram"}) {
    damage(base::read_text_file(text_data() / name / "tokenizer.model"), use_model, "t.model", 300);
  }
}

std::string json_error(Json json) {
  return message_of([&] { use(json.dump()); });
}

void expect_error(const std::string& message, const char* part) {
  EXPECT_TRUE(message.starts_with("t.json") || message.starts_with("t.model")) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

Json bpe(Json vocab, Json merges) {
  return {{"model", {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", std::move(merges)}}}};
}

TEST(Damaged, VocabulariesOfTokenizerJson) {
  expect_error(message_of([] { use("{\"model\": {"); }), "t.json");
  expect_error(json_error(Json::array()), "no 'model'");
  expect_error(json_error({{"model", {{"type", "Magic"}}}}), "tokeniser model 'Magic' is not supported");
  expect_error(json_error(bpe(Json::array(), Json::array())), "'vocab' of the model has the wrong type");
  expect_error(json_error(bpe({{"a", 0}}, nullptr)), "'merges' of the model has the wrong type");
  expect_error(json_error(bpe({{"a", 1000000000}}, Json::array())), "token 'a' has id 1000000000");
  expect_error(json_error(bpe({{"a", 1e9}}, Json::array())), "must be a whole number");
  expect_error(json_error(bpe({{"a", -1}}, Json::array())), "must be a whole number");
  expect_error(json_error(bpe({{"a", std::numeric_limits<std::uint64_t>::max()}}, Json::array())),
               "must be a whole number");
  expect_error(json_error(bpe({{"a", "0"}}, Json::array())), "must be a whole number");
  expect_error(json_error(bpe({{"a", 0}, {"b", 0}}, Json::array())), "id 0 stands for two tokens, 'a' and 'b'");
}

TEST(Damaged, MergesOfTokenizerJson) {
  expect_error(json_error(bpe({{"a", 0}, {"b", 1}}, {"a b"})), "merge 0 ('a' + 'b') needs the token 'ab'");
  expect_error(json_error(bpe({{"a", 0}, {"ab", 1}}, {"a b"})), "needs the token 'b', which the vocabulary lacks");
  expect_error(json_error(bpe({{"a", 0}}, {"a"})), "merge 0 is 'a', expected two tokens");
  expect_error(json_error(bpe({{"a", 0}}, {{"a", "b", "c"}})), "merge 0 must be a string or a pair");
  expect_error(json_error(bpe({{"a", 0}}, {7})), "merge 0 must be a string or a pair");
}

TEST(Damaged, UnigramAndWordPieceOfTokenizerJson) {
  const auto unigram = [](Json vocab, Json unk) -> Json {
    return {{"model", {{"type", "Unigram"}, {"unk_id", std::move(unk)}, {"vocab", std::move(vocab)}}}};
  };
  expect_error(json_error(unigram(Json::parse(R"([["a", 0.0]])"), 5)), "unk_id is 5, the vocabulary has 1 tokens");
  expect_error(json_error(unigram(Json::parse(R"([["a", "x"]])"), 0)),
               "entry 0 of the unigram vocabulary must be [token, score]");
  expect_error(json_error(unigram({7}, 0)), "entry 0 of the unigram vocabulary");
  expect_error(json_error({{"model", {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}}}}),
               "the unknown token '[UNK]' is not in the vocabulary");
}

TEST(Damaged, AddedTokensAndPostProcessors) {
  Json json = bpe({{"a", 0}, {"b", 1}}, Json::array());
  const auto added = [&](Json token) {
    json["added_tokens"] = {std::move(token)};
    return json_error(json);
  };
  expect_error(added({{"id", 1}, {"content", "new"}}), "has id 1, which the vocabulary gives to 'b'");
  expect_error(added({{"id", 1000000000}, {"content", "new"}}), "has id 1000000000, expected 0 to");
  expect_error(added({{"id", 5}, {"content", ""}}), "has 0 bytes, expected 1 to 1024");
  expect_error(added({{"id", 5}, {"content", std::string(5000, 'x')}}), "has 5000 bytes");
  expect_error(added({{"content", "new"}}), "'id' is missing");
  expect_error(added("x"), "expected an object holding 'id'");
  json["added_tokens"] = {{{"id", 5}, {"content", "x"}}, {{"id", 5}, {"content", "y"}}};
  expect_error(json_error(json), "id 5 is given to two added tokens, 'x' and 'y'");
  json.erase("added_tokens");
  json["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"a", 0}}, {"sep", {"b", 900}}};
  expect_error(json_error(json), "the post-processor's id is 900");
  json["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"a", 0}}};
  expect_error(json_error(json), "'sep' is missing");
  json["post_processor"] = {
      {"type", "TemplateProcessing"}, {"single", {{{"Odd", 1}}}}, {"special_tokens", Json::object()}};
  expect_error(json_error(json), "'SpecialToken' is missing");
}

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out.push_back(static_cast<char>((value & 127) | 128));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string message(int field, const std::string& payload) {
  return varint(static_cast<std::uint64_t>(field) << 3 | 2) + varint(payload.size()) + payload;
}

std::string number(int field, std::uint64_t value) {
  return varint(static_cast<std::uint64_t>(field) << 3) + varint(value);
}

std::string piece(const std::string& text, int type) {
  return message(1, message(1, text) + number(3, static_cast<std::uint64_t>(type)));
}

TEST(Damaged, SentencePieceFields) {
  const auto error = [](const std::string& bytes) { return message_of([&] { use_model(bytes); }); };
  const std::string pieces = piece("<unk>", 2) + piece("a", 1) + piece("b", 1);
  EXPECT_EQ(error(pieces), "");
  expect_error(error(""), "no pieces");
  expect_error(error("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
               "declares 18446744073709551615 bytes, 0 are left");
  expect_error(error("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "more than 64 bits");
  expect_error(error("\x0a"), "ends inside a number");
  expect_error(error("\x0b"), "wire type 3");
  expect_error(error(std::string("\x00\x00", 2)), "no protobuf field");
  expect_error(error(pieces + message(2, number(3, 3))), "model type 3 is not supported");
  expect_error(error(pieces + message(2, number(24, 1))), "white space as suffix");
  expect_error(error(pieces + message(2, number(40, 1000000000))),
               "the unknown-token id is 1000000000, the model has 3 pieces");
  expect_error(error(pieces + message(2, number(41, 3))), "the BOS id is 3");
  expect_error(error(piece("x", 9)), "piece 0 has type 9");
  expect_error(error(piece("\xff", 1)), "piece 0 is not valid UTF-8");
  expect_error(error(message(1, message(1, "a") + std::string("\x15\x00\x00\xc0\x7f", 5))), "not finite");
  expect_error(error(pieces + piece(std::string(2000, 'a'), 1) + message(2, number(3, 2))),
               "has 2000 bytes, the limit");
  expect_error(error(pieces + message(3, message(2, "abc"))), "charsmap has 3 bytes");
}

TEST(Damaged, VocabTxt) {
  const auto folder = fresh_folder("damaged-vocab");
  base::write_file_atomically(folder / "vocab.txt", std::string("\x00\xff\xfe binary", 10));
  EXPECT_NE(message_of([&] { load_tokenizer(folder); }).find("vocab.txt: not UTF-8 text"), std::string::npos);
  base::write_file_atomically(folder / "vocab.txt", "");
  EXPECT_NE(message_of([&] { load_tokenizer(folder); }).find("'[UNK]' is not in the vocabulary"), std::string::npos);
}

}  // namespace
}  // namespace gantry::text
