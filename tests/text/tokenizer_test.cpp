// What a tokeniser promises beyond the goldens: no byte lost, long words, threads, spellings.
#include "gantry/text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "gantry/base/random.h"
#include "gantry/base/timer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> load(const char* name) { return load_tokenizer(text_data() / name); }

std::string random_bytes(base::CounterRandom& random, std::size_t length) {
  static constexpr std::string_view kParts[] = {"a",        " ",    "\xc3",
                                                "\xe2\x82", "\xff", "\xf0\x9f\x98\x80",
                                                "the",      "\n",   "\xf4\x8f\xbd\x81",
                                                "\x80",     "12",   std::string_view("\0", 1)};
  std::string text;
  for (std::size_t i = 0; i < length; ++i) text += kParts[random.below(std::size(kParts))];
  return text;
}

TEST(Tokenizer, InvalidUtf8KeepsEveryByteWhereThereAreByteTokens) {
  base::CounterRandom random(11);
  for (const char* name : {"gpt2", "llama3", "llama2", "sp-bpe"}) {
    const auto tokenizer = load(name);
    for (int i = 0; i < 200; ++i) {
      const std::string text = random_bytes(random, 1 + random.below(20));
      EXPECT_EQ(tokenizer->decode_bytes(tokenizer->encode(text)), text) << name << " " << i;
    }
  }
}

TEST(Tokenizer, InvalidUtf8IsUnknownElsewhere) {
  for (const char* name : {"bert", "unigram", "word-level", "clip"}) {
    const auto tokenizer = load(name);
    const Ids ids = tokenizer->encode("\xff\xfe the");
    ASSERT_TRUE(tokenizer->unk_id()) << name;
    EXPECT_TRUE(ids.empty() || std::find(ids.begin(), ids.end(), *tokenizer->unk_id()) != ids.end() ||
                std::string_view(name) == "bert")  // BERT's normaliser drops them
        << name;
  }
}

TEST(Tokenizer, DecodePutsReplacementCharactersForHalfCharacters) {
  const auto tokenizer = load("gpt2");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xe2\x82z")), "a\xef\xbf\xbdz");
}

TEST(Tokenizer, WordsOfAMegabyteTakeNoQuadraticTime) {
  base::CounterRandom random(5);
  std::string letters;
  for (int i = 0; i < (1 << 20); ++i) letters.push_back(static_cast<char>('a' + random.below(26)));
  for (const char* name : {"gpt2", "llama2", "sp-unigram-bytes"}) {
    const auto tokenizer = load(name);
    for (const std::string& word : {letters, std::string(1 << 20, 'e'), std::string(1 << 20, ' ')}) {
      const base::Timer timer;
      const Ids ids = tokenizer->encode(word);
      EXPECT_LT(timer.seconds(), 20) << name;         // quadratic would be hours
      if (name != std::string("sp-unigram-bytes")) {  // which strips spaces
        EXPECT_EQ(tokenizer->decode(ids), word) << name;
      }
    }
  }
}

TEST(Tokenizer, LargeTextsInParallelEqualTheirParts) {
  std::string unit;
  for (const std::string& text : golden_texts()) unit += "Line " + text + "\n";
  unit += "Last line\n";
  for (const char* name : {"gpt2", "llama3"}) {
    const auto tokenizer = load(name);
    const Ids once = tokenizer->encode(unit);
    std::string many;
    Ids expected;
    while (many.size() < (3u << 20)) {
      many += unit;
      expected.insert(expected.end(), once.begin(), once.end());
    }
    EXPECT_EQ(tokenizer->encode(many), expected) << name;
  }
}

TEST(Tokenizer, ThreadsShareOneTokenizer) {
  const auto tokenizer = load("qwen2");
  const auto other = load("gpt2");
  const auto texts = golden_texts();
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer->encode(text));
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        for (std::size_t i = 0; i < texts.size(); ++i) {
          other->encode(texts[i]);  // another vocabulary in the same word tables
          wrong[t] += tokenizer->encode(texts[i]) != expected[i];
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, SpellingsAndBytesOfTokens) {
  const auto bytes = load("gpt2");
  const auto the = bytes->id_of("Ġthe");
  ASSERT_TRUE(the);
  EXPECT_EQ(bytes->token_bytes(*the), " the");
  EXPECT_EQ(bytes->token_text(*the), "Ġthe");
  EXPECT_FALSE(bytes->id_of("no such token"));
  EXPECT_TRUE(bytes->is_special(*bytes->id_of("<|end|>")));
  EXPECT_FALSE(bytes->is_special(*bytes->id_of("<tool>")));
  EXPECT_EQ(bytes->token_bytes(*bytes->id_of("<tool>")), "<tool>");

  const auto metaspace = load("llama2");
  EXPECT_EQ(metaspace->token_bytes(*metaspace->id_of("<0xE2>")), "\xe2");
  EXPECT_EQ(metaspace->token_bytes(*metaspace->id_of("▁the")), " the");
  const auto pieces = load("bert");
  EXPECT_EQ(pieces->token_bytes(*pieces->id_of("##s")), "s");
  EXPECT_EQ(pieces->token_bytes(*pieces->id_of("the")), " the");
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreRefused) {
  const auto tokenizer = load("gpt2");
  for (const std::int32_t id : {-1, tokenizer->vocab_size(), 1 << 30}) {
    const std::string expected =
        fmt::format("token id {} is outside the vocabulary of {} tokens", id, tokenizer->vocab_size());
    EXPECT_EQ(message_of([&] { tokenizer->decode(Ids{id}); }), expected);
    EXPECT_EQ(message_of([&] { tokenizer->token_text(id); }), expected);
    EXPECT_EQ(message_of([&] { tokenizer->token_bytes(id); }), expected);
  }
}

TEST(Tokenizer, AddedTokensHonourWordsAndWhiteSpace) {
  const auto tokenizer = load("gpt2");
  const std::int32_t mask = *tokenizer->id_of("mask");
  const auto count = [&](const char* text) {
    const Ids ids = tokenizer->encode(text);
    return std::count(ids.begin(), ids.end(), mask);
  };
  EXPECT_EQ(count("mask"), 1);
  EXPECT_EQ(count("unmask masks mask_"), 0);
  EXPECT_EQ(count("(mask) mask"), 2);
  EXPECT_EQ(tokenizer->encode("  mask  "), Ids{mask});  // lstrip and rstrip
}

}  // namespace
}  // namespace gantry::text
