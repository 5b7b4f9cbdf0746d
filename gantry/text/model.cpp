#include "gantry/text/model.h"

#include <limits>

#include "gantry/text/bpe_model.h"
#include "gantry/text/byte_map.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/unigram_model.h"
#include "gantry/text/wordpiece_model.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

// A member that stays in place; vocabularies are too large to copy.
const Json& member(const Json& object, const char* key, Json::value_t type, std::string_view source) {
  GANTRY_CHECK(object.is_object() && object.contains(key), "{}: '{}' is missing in the model", source, key);
  const Json& found = object.at(key);
  GANTRY_CHECK(found.type() == type, "{}: '{}' of the model has the wrong type ({})", source, key, found.type_name());
  return found;
}

std::string text_or_empty(const Json& object, const char* key, std::string_view source) {
  return json_get_or<std::string>(object, key, "", source);
}

Vocabulary vocabulary_from_map(const Json& config, std::string_view source) {
  const Json& map = member(config, "vocab", Json::value_t::object, source);
  std::vector<std::pair<std::string_view, std::int32_t>> tokens;
  tokens.reserve(map.size());
  for (const auto& [token, id] : map.get_ref<const Json::object_t&>()) {
    GANTRY_CHECK(id.is_number_integer() && id.get<std::int64_t>() >= 0 &&
                     id.get<std::int64_t>() <= std::numeric_limits<std::int32_t>::max(),
                 "{}: the id of token '{}' must be a whole number from 0 to 2^31 - 1, found {}", source, token,
                 id.dump(-1, ' ', false, Json::error_handler_t::replace));
    tokens.emplace_back(token, id.get<std::int32_t>());
  }
  return Vocabulary(tokens, source);
}

// The two sides of a merge: ["a", "b"], or "a b" cut at the space.
std::pair<std::string_view, std::string_view> merge_sides(const Json& item, std::size_t index,
                                                          std::string_view source) {
  if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
    return {item[0].get_ref<const std::string&>(), item[1].get_ref<const std::string&>()};
  }
  GANTRY_CHECK(item.is_string(), "{}: merge {} must be a string or a pair of strings", source, index);
  const std::string_view text = item.get_ref<const std::string&>();
  const std::size_t space = text.find(' ', 1);
  GANTRY_CHECK(space != std::string_view::npos && space + 1 < text.size(),
               "{}: merge {} is '{}', expected two tokens with a space between", source, index, text);
  return {text.substr(0, space), text.substr(space + 1)};
}

std::unique_ptr<Model> bpe_from_json(const Json& config, std::string_view source, bool spells_bytes) {
  Vocabulary vocabulary = vocabulary_from_map(config, source);
  BpeOptions options;
  options.unk_token = text_or_empty(config, "unk_token", source);
  options.continuing_subword_prefix = text_or_empty(config, "continuing_subword_prefix", source);
  options.end_of_word_suffix = text_or_empty(config, "end_of_word_suffix", source);
  options.fuse_unk = json_get_or<bool>(config, "fuse_unk", false, source);
  options.byte_fallback = json_get_or<bool>(config, "byte_fallback", false, source);
  options.ignore_merges = json_get_or<bool>(config, "ignore_merges", false, source);
  options.spells_bytes = spells_bytes;
  const Json& list = member(config, "merges", Json::value_t::array, source);
  std::vector<std::pair<std::string_view, std::string_view>> sides;
  sides.reserve(list.size());
  for (const Json& item : list) sides.push_back(merge_sides(item, sides.size(), source));
  auto merges = resolve_merges(vocabulary, sides, options.continuing_subword_prefix, source);
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), std::move(options), source);
}

std::unique_ptr<Model> unigram_from_json(const Json& config, std::string_view source,
                                         const std::vector<std::int32_t>& frozen) {
  const Json& list = member(config, "vocab", Json::value_t::array, source);
  std::vector<std::pair<std::string_view, std::int32_t>> tokens;
  std::vector<double> scores;
  for (const Json& item : list) {
    GANTRY_CHECK(item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_number(),
                 "{}: entry {} of the unigram vocabulary must be [token, score]", source, tokens.size());
    tokens.emplace_back(item[0].get_ref<const std::string&>(), static_cast<std::int32_t>(tokens.size()));
    scores.push_back(item[1].get<double>());
  }
  UnigramOptions options;
  options.unk_id = json_get_or<std::int32_t>(config, "unk_id", Vocabulary::kNone, source);
  options.byte_fallback = json_get_or<bool>(config, "byte_fallback", false, source);
  std::vector<bool> used(tokens.size(), true);
  for (const std::int32_t id : frozen) {
    if (id >= 0 && static_cast<std::size_t>(id) < used.size()) used[static_cast<std::size_t>(id)] = false;
  }
  return std::make_unique<UnigramModel>(Vocabulary(tokens, source), std::move(scores), used, options, source);
}

// Files of early versions leave the type out.
std::string model_type(const Json& config, std::string_view source) {
  GANTRY_CHECK(config.is_object(), "{}: 'model' must be an object, found {}", source, config.type_name());
  if (config.contains("type")) return json_get<std::string>(config, "type", source);
  if (config.contains("merges")) return "BPE";
  if (config.contains("vocab") && config.at("vocab").is_array()) return "Unigram";
  return config.contains("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

}  // namespace

std::unique_ptr<Model> model_from_json(const Json& config, std::string_view source, bool spells_bytes,
                                       const std::vector<std::int32_t>& frozen) {
  const std::string type = model_type(config, source);
  if (type == "BPE") return bpe_from_json(config, source, spells_bytes);
  if (type == "Unigram") return unigram_from_json(config, source, frozen);
  if (type == "WordPiece") {
    WordPieceOptions options;
    options.unk_token = json_get_or<std::string>(config, "unk_token", options.unk_token, source);
    options.continuing_subword_prefix =
        json_get_or<std::string>(config, "continuing_subword_prefix", options.continuing_subword_prefix, source);
    options.max_input_chars_per_word = json_get_or<std::uint32_t>(config, "max_input_chars_per_word", 100, source);
    return std::make_unique<WordPieceModel>(vocabulary_from_map(config, source), std::move(options), source);
  }
  if (type == "WordLevel") {
    return std::make_unique<WordLevelModel>(vocabulary_from_map(config, source),
                                            text_or_empty(config, "unk_token", source));
  }
  base::fail_input("{}: tokeniser model '{}' is not supported; expected BPE, Unigram, WordPiece or WordLevel", source,
                   type);
}

base::OrderedJson Model::vocabulary_json() const {
  base::OrderedJson json = base::OrderedJson::object();
  // The ordered object looks for duplicates in linear time when it inserts; its base vector does not.
  auto& entries = static_cast<base::OrderedJson::object_t::Container&>(json.get_ref<base::OrderedJson::object_t&>());
  entries.reserve(static_cast<std::size_t>(vocabulary_.size()));
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view token = vocabulary_.text(id);
    if (!vocabulary_.is_hole(id) && vocabulary_.find(token) == id) entries.emplace_back(std::string(token), id);
  }
  return json;
}

bool crosses_metaspace(const Vocabulary& vocabulary) {
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view token = vocabulary.text(id);
    for (std::size_t at = token.find(kMetaspace); at != std::string_view::npos; at = token.find(kMetaspace, at + 1)) {
      if (at > 0 && (at < kMetaspace.size() || token.substr(at - kMetaspace.size(), kMetaspace.size()) != kMetaspace)) {
        return true;
      }
    }
  }
  return false;
}

std::vector<std::int32_t> byte_token_ids(const Vocabulary& vocabulary) {
  std::vector<std::int32_t> ids(256);
  for (unsigned byte = 0; byte < 256; ++byte) {
    ids[byte] = vocabulary.find(byte_token(static_cast<unsigned char>(byte)));
    if (ids[byte] == Vocabulary::kNone) return {};
  }
  return ids;
}

}  // namespace gantry::text
