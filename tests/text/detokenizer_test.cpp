#include "gantry/text/detokenizer.h"

#include <gtest/gtest.h>

#include "gantry/text/decoder.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/utf8.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

TEST(StreamingDetokenizer, HoldsBackHalfCharacters) {
  const auto tokenizer = load_tokenizer(text_data() / "gpt2");
  const std::string snowman = "\xe2\x98\x83";
  const auto ids = tokenizer->encode(snowman);
  ASSERT_EQ(ids.size(), 3u);  // no token of its own
  StreamingDetokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), snowman);
  EXPECT_EQ(stream.flush(), "");
}

TEST(StreamingDetokenizer, FlushEndsAHalfCharacterAndStartsAnew) {
  const auto tokenizer = load_tokenizer(text_data() / "gpt2");
  const auto ids = tokenizer->encode("\xe2\x98\x83");
  StreamingDetokenizer stream(*tokenizer);
  stream.push(ids[0]);
  EXPECT_EQ(stream.flush(), "\xef\xbf\xbd");
  EXPECT_EQ(stream.push(tokenizer->encode("a")[0]), "a");
}

TEST(StreamingDetokenizer, BytesThatCannotBeCompletedComeAtOnce) {
  const auto tokenizer = load_tokenizer(text_data() / "gpt2");
  const auto ids = tokenizer->encode("\xe2z");
  StreamingDetokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "\xef\xbf\xbdz");
}

TEST(StreamingDetokenizer, SpecialTokensAreSkippedOnRequest) {
  const auto tokenizer = load_tokenizer(text_data() / "gpt2");
  const auto end = *tokenizer->id_of("<|end|>");
  EXPECT_EQ(StreamingDetokenizer(*tokenizer).push(end), "");
  EXPECT_EQ(StreamingDetokenizer(*tokenizer, false).push(end), "<|end|>");
  StreamingDetokenizer stream(*tokenizer);
  EXPECT_NE(message_of([&] { stream.push(1 << 20); }).find("outside the vocabulary"), std::string::npos);
}

TEST(StreamingDetokenizer, RandomIdsNeverGiveInvalidUtf8) {
  for (const char* name : {"gpt2", "llama2", "sp-unigram-bytes", "bert"}) {
    const auto tokenizer = load_tokenizer(text_data() / name);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 3000; ++i) ids.push_back((i * 7919 + i * i % 311) % tokenizer->vocab_size());
    StreamingDetokenizer stream(*tokenizer, false);
    std::string joined;
    for (const std::int32_t id : ids) {
      const std::string piece = stream.push(id);
      EXPECT_TRUE(is_valid_utf8(piece));
      joined += piece;
    }
    EXPECT_EQ(joined + stream.flush(), tokenizer->decode(ids)) << name;
  }
}

std::string decode(const char* config, const std::vector<std::string>& tokens) {
  const Decoder decoder(config == nullptr ? base::Json() : base::Json::parse(config), "test");
  Decoder::State state;
  std::string out;
  for (const std::string& token : tokens) decoder.append(token, false, state, out);
  decoder.finish(state, out);
  return out;
}

TEST(Decoder, StepsWorkOnTokensOrOnTheWholeText) {
  EXPECT_EQ(decode(nullptr, {"a", "b"}), "a b");
  EXPECT_EQ(decode(R"({"type": "BPEDecoder"})", {"th", "e</w>", "end</w>"}), "the end");
  EXPECT_EQ(decode(R"({"type": "WordPiece"})", {"don", "'", "##t", ",", "stop", "."}), "don 't, stop.");
  EXPECT_EQ(decode(R"({"type": "Metaspace"})", {"▁a", "▁b"}), "a b");
  EXPECT_EQ(decode(R"({"type": "Metaspace", "prepend_scheme": "never"})", {"▁a", "▁b"}), " a b");
  EXPECT_EQ(
      decode(
          R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}]})",
          {" ", " ", " a"}),
      " a");
  EXPECT_EQ(
      decode(
          R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]})",
          {" a", " ", " "}),
      "a ");
  EXPECT_EQ(
      decode(
          R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "X"}]})",
          {"a", "b"}),
      "X");
  EXPECT_EQ(message_of([] { Decoder(base::Json::parse(R"({"type": "CTC"})"), "t.json"); }),
            "t.json: decoder 'CTC' is not supported");
}

}  // namespace
}  // namespace gantry::text
