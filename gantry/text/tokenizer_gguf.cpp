// Tokenisers from GGUF metadata (tokenizer.ggml.*).
#include <algorithm>

#include "gantry/base/log.h"
#include "gantry/formats/gguf.h"
#include "gantry/text/bpe_model.h"
#include "gantry/text/gguf_families.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_files.h"

namespace gantry::text {
namespace {

using base::Json;
using formats::GgufFile;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
// Tokens that end a turn or a text in the families around, for files that name only one of theirs.
constexpr const char* kStopSpellings[] = {"<|eot_id|>",          "<|eom_id|>",    "<|im_end|>",      "<|end|>",
                                          "<end_of_turn>",       "<|endoftext|>", "<|end_of_text|>", "<EOT>",
                                          "<|end▁of▁sentence|>", "</s>"};

// Types of the tokens; all normal where the file gives none.
std::vector<PieceType> token_types(const GgufFile& file, std::size_t count) {
  std::vector<PieceType> types(count, PieceType::kNormal);
  if (!file.has(kTypes)) return types;
  const std::vector<std::int64_t> values = file.get_int_array(kTypes);
  GANTRY_CHECK(values.size() == count, "{}: '{}' has {} entries for {} tokens", file.source(), kTypes, values.size(),
               count);
  for (std::size_t i = 0; i < count; ++i) {
    if (values[i] >= 1 && values[i] <= 6) types[i] = static_cast<PieceType>(values[i]);
  }
  return types;
}

std::optional<std::int32_t> id_at(const GgufFile& file, const char* key, std::size_t count) {
  const std::string name = std::string("tokenizer.ggml.") + key;
  if (!file.has(name)) return std::nullopt;
  const std::int64_t id = file.get_i64(name);
  if (id < 0 || id == 0xffffffffll) return std::nullopt;
  GANTRY_CHECK(id < static_cast<std::int64_t>(count), "{}: '{}' is {}, the vocabulary has {} tokens", file.source(),
               name, id, count);
  return static_cast<std::int32_t>(id);
}

bool flag(const GgufFile& file, const char* key, bool fallback) {
  return file.get_bool(std::string("tokenizer.ggml.") + key, fallback);
}

void set_ids(const GgufFile& file, std::size_t count, TokenizerParts& parts) {
  const auto set = [&](std::optional<std::int32_t>& target, const char* key) {
    if (const auto id = id_at(file, key, count)) target = id;
  };
  set(parts.bos_id, "bos_token_id");
  set(parts.eos_id, "eos_token_id");
  set(parts.pad_id, "padding_token_id");
  set(parts.unk_id, "unknown_token_id");
  for (const char* key : {"eot_token_id", "eom_token_id"}) {
    if (const auto id = id_at(file, key, count)) parts.stop_ids.push_back(*id);
  }
  for (const AddedToken& token : parts.added_tokens) {
    const bool stops =
        std::find(std::begin(kStopSpellings), std::end(kStopSpellings), token.content) != std::end(kStopSpellings);
    if (token.special && stops) parts.stop_ids.push_back(token.id);
  }
  parts.chat_template = file.get_string("tokenizer.chat_template", "");
}

void add_control_tokens(const std::vector<std::string>& tokens, const std::vector<PieceType>& types,
                        TokenizerParts& parts) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool special = types[i] == PieceType::kControl || types[i] == PieceType::kUnknown;
    if (tokens[i].empty() || (!special && types[i] != PieceType::kUserDefined)) continue;
    parts.added_tokens.push_back({static_cast<std::int32_t>(i), tokens[i], special});
  }
}

using Named = std::vector<std::pair<std::string, std::int32_t>>;

Named named(const std::vector<std::string>& tokens, bool wanted, std::optional<std::int32_t> id) {
  if (!wanted || !id) return {};
  return {{tokens[static_cast<std::size_t>(*id)], *id}};
}

TokenizerParts byte_level_parts(const GgufFile& file) {
  const auto& tokens = file.get_string_array(kTokens);
  if (!file.has("tokenizer.ggml.pre")) {
    base::log_warn(
        "{}: 'tokenizer.ggml.pre' is missing; the default pre-tokeniser may cut text otherwise than the model's",
        file.source());
  }
  const GgufFamily& family = gguf_family(file.get_string("tokenizer.ggml.pre", "default"), file.source());
  TokenizerParts parts;
  parts.source = file.source();
  parts.normalizer = family_normalizer(family);
  parts.pre_tokenizer = family_pre_tokenizer(family);
  parts.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  parts.spells_bytes = true;
  Vocabulary vocabulary(tokens, file.source());
  std::vector<std::pair<std::string_view, std::string_view>> sides;
  for (const std::string& merge : file.get_string_array("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ', 1);
    GANTRY_CHECK(space != std::string::npos && space + 1 < merge.size(),
                 "{}: merge {} is '{}', expected two tokens with a space between", file.source(), sides.size(), merge);
    sides.emplace_back(std::string_view(merge).substr(0, space), std::string_view(merge).substr(space + 1));
  }
  BpeOptions options;
  options.ignore_merges = family.ignore_merges;
  options.spells_bytes = true;
  auto merges = resolve_merges(vocabulary, sides, "", file.source());
  parts.model = std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), std::move(options), file.source());
  add_control_tokens(tokens, token_types(file, tokens.size()), parts);
  set_ids(file, tokens.size(), parts);
  const bool add_bos = flag(file, "add_bos_token", family.add_bos || family.add_frame);
  const bool add_eos = flag(file, "add_eos_token", family.add_frame) || flag(file, "add_sep_token", false);
  parts.post_processor =
      template_processing(named(tokens, add_bos, parts.bos_id), named(tokens, add_eos, parts.eos_id));
  return parts;
}

TokenizerParts sentencepiece_parts(const GgufFile& file, bool unigram) {
  const auto& tokens = file.get_string_array(kTokens);
  const std::vector<PieceType> types = token_types(file, tokens.size());
  const std::vector<float> scores = file.get_f32_array("tokenizer.ggml.scores");
  GANTRY_CHECK(scores.size() == tokens.size(), "{}: 'tokenizer.ggml.scores' has {} entries for {} tokens",
               file.source(), scores.size(), tokens.size());
  SentencePieceModel model;
  model.source = file.source();
  model.algorithm = unigram ? SentencePieceModel::Algorithm::kUnigram : SentencePieceModel::Algorithm::kBpe;
  for (std::size_t i = 0; i < tokens.size(); ++i) model.pieces.push_back({tokens[i], scores[i], types[i]});
  model.byte_fallback = std::count(types.begin(), types.end(), PieceType::kByte) == 256;
  model.add_dummy_prefix = flag(file, "add_space_prefix", true);
  model.remove_extra_whitespaces = flag(file, "remove_extra_whitespaces", false);
  if (file.has("tokenizer.ggml.precompiled_charsmap")) {
    for (const std::int64_t byte : file.get_int_array("tokenizer.ggml.precompiled_charsmap")) {
      model.charsmap.push_back(static_cast<char>(static_cast<unsigned char>(byte & 0xff)));
    }
  }
  const auto id = [&](const char* key, std::int32_t fallback) {
    const auto found = id_at(file, key, tokens.size());
    return found ? *found : static_cast<std::size_t>(fallback + 1) > tokens.size() ? -1 : fallback;
  };
  model.unk_id = id("unknown_token_id", unigram ? 2 : 0);
  model.bos_id = id("bos_token_id", unigram ? -1 : 1);
  model.eos_id = id("eos_token_id", unigram ? 1 : 2);
  model.pad_id = id("padding_token_id", unigram ? 0 : -1);
  SentencePieceFrame frame;
  frame.add_bos = flag(file, "add_bos_token", !unigram);
  frame.add_eos = flag(file, "add_eos_token", unigram);
  TokenizerParts parts = parts_from_sentencepiece(std::move(model), frame);
  set_ids(file, tokens.size(), parts);
  return parts;
}

// GGUF marks the beginnings of words with U+2581 where WordPiece marks the continuations with "##".
TokenizerParts bert_gguf_parts(const GgufFile& file) {
  const auto& tokens = file.get_string_array(kTokens);
  const std::vector<PieceType> types = token_types(file, tokens.size());
  std::vector<std::string> spelled;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::string& token = tokens[i];
    const bool bracketed = token.starts_with('[') && token.ends_with(']');
    if (token.starts_with(kMetaspace))
      spelled.push_back(token.substr(kMetaspace.size()));
    else if (types[i] == PieceType::kNormal && !bracketed)
      spelled.push_back("##" + token);
    else
      spelled.push_back(token);
  }
  TokenizerParts parts =
      bert_parts(Vocabulary(spelled, file.source()), flag(file, "do_lower_case", true), Json(), true, file.source());
  const auto cls = id_at(file, "cls_token_id", tokens.size());
  const auto sep = id_at(file, "seperator_token_id", tokens.size());  // spelled so in the format
  set_ids(file, tokens.size(), parts);
  if (cls && sep) parts.post_processor = template_processing(named(spelled, true, cls), named(spelled, true, sep));
  return parts;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_gguf(const GgufFile& file) {
  const std::string& model = file.get_string("tokenizer.ggml.model");
  if (model == "gpt2") return std::make_unique<Tokenizer>(byte_level_parts(file));
  if (model == "llama") return std::make_unique<Tokenizer>(sentencepiece_parts(file, false));
  if (model == "t5") return std::make_unique<Tokenizer>(sentencepiece_parts(file, true));
  if (model == "bert") return std::make_unique<Tokenizer>(bert_gguf_parts(file));
  base::fail_input("{}: 'tokenizer.ggml.model' is '{}', expected gpt2, llama, t5 or bert", file.source(), model);
}

}  // namespace gantry::text
