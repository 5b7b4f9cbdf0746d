// GGUF metadata made from the golden tokenisers must give the golden ids.
#include <gtest/gtest.h>

#include "gantry/base/file.h"
#include "gantry/formats/gguf.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_parts.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

using base::Json;
using Ids = std::vector<std::int32_t>;
using Metadata = std::vector<std::pair<std::string, formats::GgufValue>>;

std::vector<std::string> tokens_of(const Tokenizer& tokenizer) {
  std::vector<std::string> tokens;
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) tokens.emplace_back(tokenizer.token_text(id));
  return tokens;
}

std::vector<std::int32_t> types_of(const Tokenizer& tokenizer) {
  std::vector<std::int32_t> types(static_cast<std::size_t>(tokenizer.vocab_size()), 1);
  for (const AddedToken& token : tokenizer.parts().added_tokens)
    types[static_cast<std::size_t>(token.id)] = token.special ? 3 : 4;
  return types;
}

Metadata byte_level(const char* name, const char* pre) {
  const auto tokenizer = load_tokenizer(text_data() / name);
  std::vector<std::string> merges;
  const Json json = base::read_json_file(text_data() / name / "tokenizer.json");
  for (const Json& merge : json.at("model").at("merges")) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string(pre)},
          {"tokenizer.ggml.tokens", tokens_of(*tokenizer)},
          {"tokenizer.ggml.token_type", types_of(*tokenizer)},
          {"tokenizer.ggml.merges", merges},
          {"tokenizer.ggml.bos_token_id", std::uint32_t{0}},
          {"tokenizer.ggml.eos_token_id", std::uint32_t{1}},
          {"tokenizer.chat_template", std::string("{{ messages }}")}};
}

Metadata sentencepiece(const char* name, const char* model) {
  const auto path = text_data() / name / "tokenizer.model";
  const SentencePieceModel source = parse_sentencepiece(base::read_text_file(path), path.string());
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (const SentencePiece& piece : source.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(static_cast<std::int32_t>(piece.type));
  }
  Metadata metadata = {{"tokenizer.ggml.model", std::string(model)},
                       {"tokenizer.ggml.tokens", tokens},
                       {"tokenizer.ggml.scores", scores},
                       {"tokenizer.ggml.token_type", types},
                       {"tokenizer.ggml.unknown_token_id", static_cast<std::uint32_t>(source.unk_id)},
                       {"tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(source.eos_id)},
                       {"tokenizer.ggml.remove_extra_whitespaces", source.remove_extra_whitespaces}};
  if (source.bos_id >= 0)
    metadata.emplace_back("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(source.bos_id));
  if (!source.charsmap.empty()) {
    metadata.emplace_back("tokenizer.ggml.precompiled_charsmap",
                          std::vector<std::int8_t>(source.charsmap.begin(), source.charsmap.end()));
  }
  return metadata;
}

void set(Metadata& metadata, const char* key, formats::GgufValue value) {
  for (auto& [name, old] : metadata) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  metadata.emplace_back(key, std::move(value));
}

std::unique_ptr<Tokenizer> from(const Metadata& metadata) {
  const auto path = fresh_folder("gguf") / "model.gguf";
  formats::write_gguf(path, metadata, {});
  return load_tokenizer(path);
}

std::string gguf_error(const Metadata& metadata) {
  return message_of([&] { from(metadata); });
}

void expect_golden(const Tokenizer& tokenizer, const char* name, bool with_special) {
  const Json rows = base::read_json_file(text_data() / name / "golden.json");
  const auto texts = golden_texts();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows[i];
    const auto text = row.contains("text") ? row.at("text").get<std::string>() : texts[i];
    const auto ids = row.at("ids").get<Ids>();
    SCOPED_TRACE(std::string(name) + " on " + Json(text).dump());
    EXPECT_EQ(tokenizer.encode(text, {.parse_special = !row.contains("text")}), ids);
    if (with_special) {
      EXPECT_EQ(tokenizer.encode(text, {.add_special = true}), row.value("special", ids));
    }
  }
}

TEST(TokenizerGguf, ByteLevelModelsEqualTheirTokenizerJson) {
  const auto llama3 = from(byte_level("llama3", "llama-bpe"));
  expect_golden(*llama3, "llama3", true);  // BOS by default in this family
  EXPECT_EQ(llama3->bos_id(), 0);
  EXPECT_EQ(llama3->eos_id(), 1);
  EXPECT_EQ(llama3->chat_template(), "{{ messages }}");
  expect_golden(*from(byte_level("qwen2", "qwen2")), "qwen2", true);
}

TEST(TokenizerGguf, FlagsDecideOnBosAndEos) {
  Metadata metadata = byte_level("qwen2", "qwen2");
  set(metadata, "tokenizer.ggml.add_bos_token", true);
  set(metadata, "tokenizer.ggml.add_eos_token", true);
  EXPECT_EQ(from(metadata)->encode("", {.add_special = true}), (Ids{0, 1}));
  metadata = byte_level("llama3", "llama-bpe");
  set(metadata, "tokenizer.ggml.add_bos_token", false);
  EXPECT_EQ(from(metadata)->encode("", {.add_special = true}), Ids{});
}

TEST(TokenizerGguf, SentencePieceModelsEqualTheirModelFile) {
  const auto bpe = from(sentencepiece("sp-bpe", "llama"));
  expect_golden(*bpe, "sp-bpe", false);
  EXPECT_EQ(bpe->encode("", {.add_special = true}), Ids{1});
  const auto unigram = from(sentencepiece("sp-unigram", "t5"));
  expect_golden(*unigram, "sp-unigram", false);
  EXPECT_EQ(unigram->encode("", {.add_special = true}), Ids{2});
  expect_golden(*from(sentencepiece("sp-unigram-bytes", "t5")), "sp-unigram-bytes", false);
}

TEST(TokenizerGguf, BertEqualsItsVocabulary) {
  const auto bert = load_tokenizer(text_data() / "bert");
  std::vector<std::string> tokens;
  for (const std::string& token : tokens_of(*bert)) {
    const bool continues = token.starts_with("##");
    tokens.push_back(token.starts_with("[") && token.size() > 1 ? token : continues ? token.substr(2) : "▁" + token);
  }
  expect_golden(*from({{"tokenizer.ggml.model", std::string("bert")},
                       {"tokenizer.ggml.tokens", tokens},
                       {"tokenizer.ggml.cls_token_id", std::uint32_t{2}},
                       {"tokenizer.ggml.seperator_token_id", std::uint32_t{3}}}),
                "bert", true);
}

TEST(TokenizerGguf, EndOfTurnTokensEndAGeneration) {
  Metadata metadata = byte_level("gpt2", "gpt-2");
  set(metadata, "tokenizer.ggml.eot_token_id", std::uint32_t{5});
  EXPECT_EQ(from(metadata)->stop_ids(), (Ids{1, 5}));
}

TEST(TokenizerGguf, DamagedMetadataIsRefusedByName) {
  const auto with = [](const char* key, formats::GgufValue value, bool pieces = false) {
    Metadata metadata = pieces ? sentencepiece("sp-bpe", "llama") : byte_level("gpt2", "gpt-2");
    set(metadata, key, std::move(value));
    return gguf_error(metadata);
  };
  const auto expect_part = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("model.gguf"), std::string::npos) << message;
  };
  expect_part(gguf_error({{"general.name", std::string("x")}}), "tokenizer.ggml.model");
  expect_part(with("tokenizer.ggml.model", std::string("rwkv")), "'rwkv', expected gpt2, llama, t5 or bert");
  expect_part(with("tokenizer.ggml.pre", std::string("zzz")), "unknown pre-tokeniser 'zzz'");
  expect_part(with("tokenizer.ggml.token_type", std::vector<std::int32_t>{1}), "has 1 entries for");
  expect_part(with("tokenizer.ggml.merges", std::vector<std::string>{"ab"}), "merge 0 is 'ab'");
  expect_part(with("tokenizer.ggml.merges", std::vector<std::string>{"t qqq"}), "needs the token 'qqq'");
  expect_part(with("tokenizer.ggml.eos_token_id", std::uint32_t{1000000}), "'tokenizer.ggml.eos_token_id' is 1000000");
  expect_part(with("tokenizer.ggml.scores", std::vector<float>{1.0f}, true), "'tokenizer.ggml.scores' has 1 entries");
  expect_part(with("tokenizer.ggml.precompiled_charsmap", std::vector<std::int8_t>{1, 2}, true),
              "charsmap has 2 bytes");
}

}  // namespace
}  // namespace gantry::text
