#include "gantry/text/tokenizer_json.h"

#include <limits>
#include <unordered_map>

#include "gantry/base/log.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

Json member_or_null(const Json& json, const char* key) { return json.contains(key) ? json.at(key) : Json(); }

std::int32_t token_id(const Json& entry, std::string_view source) {
  const auto id = json_get<std::int64_t>(entry, "id", source);
  GANTRY_CHECK(id >= 0 && id <= std::numeric_limits<std::int32_t>::max(),
               "{}: the added token's 'id' is {}, expected 0 to 2^31 - 1", source, id);
  return static_cast<std::int32_t>(id);
}

std::vector<AddedToken> added_tokens_of(const Json& json, std::string_view source) {
  std::vector<AddedToken> tokens;
  if (!json.contains("added_tokens") || json.at("added_tokens").is_null()) return tokens;
  const Json& list = json.at("added_tokens");
  GANTRY_CHECK(list.is_array(), "{}: 'added_tokens' must be a list, found {}", source, list.type_name());
  for (const Json& entry : list) tokens.push_back(added_token_from_json(entry, token_id(entry, source), source));
  return tokens;
}

}  // namespace

AddedToken added_token_from_json(const Json& entry, std::int32_t id, std::string_view source) {
  AddedToken token;
  token.id = id;
  token.content = json_get<std::string>(entry, "content", source);
  token.special = json_get_or<bool>(entry, "special", false, source);
  token.single_word = json_get_or<bool>(entry, "single_word", false, source);
  token.lstrip = json_get_or<bool>(entry, "lstrip", false, source);
  token.rstrip = json_get_or<bool>(entry, "rstrip", false, source);
  token.normalized = json_get_or<bool>(entry, "normalized", !token.special, source);
  return token;
}

bool ends_in_byte_level(const Json& pre_tokenizer) {
  if (!pre_tokenizer.is_object() || !pre_tokenizer.contains("type")) return false;
  if (pre_tokenizer.at("type") == "ByteLevel") return true;
  if (pre_tokenizer.at("type") != "Sequence" || !pre_tokenizer.contains("pretokenizers")) return false;
  const Json& list = pre_tokenizer.at("pretokenizers");
  return list.is_array() && !list.empty() && ends_in_byte_level(list.back());
}

TokenizerParts parts_from_tokenizer_json(const Json& json, std::string source) {
  GANTRY_CHECK(json.is_object() && json.contains("model"),
               "{}: no 'model'; expected a tokenizer.json of the "
               "`tokenizers` package",
               source);
  TokenizerParts parts;
  parts.source = std::move(source);
  parts.normalizer = member_or_null(json, "normalizer");
  parts.pre_tokenizer = member_or_null(json, "pre_tokenizer");
  parts.decoder = member_or_null(json, "decoder");
  parts.post_processor = member_or_null(json, "post_processor");
  const Json& model = json.at("model");
  const bool is_bpe = model.is_object() && (model.contains("merges") || member_or_null(model, "type") == "BPE");
  parts.spells_bytes = is_bpe && ends_in_byte_level(parts.pre_tokenizer);
  const std::vector<AddedToken> added = added_tokens_of(json, parts.source);
  std::vector<std::int32_t> frozen;
  for (const AddedToken& token : added) {
    if (token.special) frozen.push_back(token.id);
  }
  parts.model = model_from_json(model, parts.source, parts.spells_bytes, frozen);
  merge_added_tokens(parts, added, parts.source);
  return parts;
}

void merge_added_tokens(TokenizerParts& parts, const std::vector<AddedToken>& tokens, std::string_view source) {
  const Vocabulary& vocabulary = parts.model->vocabulary();
  std::unordered_map<std::string, std::int32_t> known;
  for (const AddedToken& token : parts.added_tokens) known.emplace(token.content, token.id);
  for (AddedToken token : tokens) {
    if (const auto found = known.find(token.content); found != known.end()) {
      GANTRY_CHECK(found->second == token.id || vocabulary.find(token.content) == found->second,
                   "{}: the added token '{}' has two ids, {} and {}", source, token.content, found->second, token.id);
      continue;
    }
    const std::int32_t spelled = token.content.empty() ? Vocabulary::kNone : vocabulary.find(token.content);
    if (spelled != Vocabulary::kNone) {
      if (spelled != token.id && vocabulary.text(std::min(token.id, vocabulary.size() - 1)) != token.content) {
        base::log_debug("{}: the added token '{}' declares id {}; the vocabulary's {} is used", source, token.content,
                        token.id, spelled);
        token.id = spelled;
      }
    } else {
      GANTRY_CHECK(token.id >= vocabulary.size() || vocabulary.is_hole(token.id) || vocabulary.text(token.id).empty(),
                   "{}: the added token '{}' has id {}, which the vocabulary gives to '{}'", source, token.content,
                   token.id, vocabulary.text(token.id));
    }
    known.emplace(token.content, token.id);
    parts.added_tokens.push_back(std::move(token));
  }
}

base::OrderedJson tokenizer_json(const TokenizerParts& parts) {
  base::OrderedJson added = base::OrderedJson::array();
  for (const AddedToken& token : parts.added_tokens) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  base::OrderedJson json = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  json["added_tokens"] = std::move(added);
  json["normalizer"] = parts.normalizer;
  json["pre_tokenizer"] = parts.pre_tokenizer;
  json["post_processor"] = parts.post_processor;
  json["decoder"] = parts.decoder;
  json["model"] = parts.model->to_json();
  return json;
}

}  // namespace gantry::text
