#include "gantry/text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "gantry/base/file.h"
#include "gantry/text/tokenizer_json.h"

namespace gantry::text {
namespace {

using base::Json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMaxTemplateBytes = 4 << 20;

Json read_object(const fs::path& path) {
  if (!fs::is_regular_file(path)) return Json::object();
  Json json = base::read_json_file(path);
  GANTRY_CHECK(json.is_object(), "{}: expected an object, found {}", path.string(), json.type_name());
  return json;
}

// A token given as "text" or {"content": "text"}; "" when missing or null.
std::string token_spelling(const Json& config, const char* key, const std::string& source) {
  if (!config.contains(key) || config.at(key).is_null()) return "";
  const Json& value = config.at(key);
  if (value.is_object()) return base::json_get<std::string>(value, "content", source);
  GANTRY_CHECK(value.is_string(), "{}: '{}' must be a string or an object, found {}", source, key, value.type_name());
  return value.get<std::string>();
}

void set_id(std::optional<std::int32_t>& target, const TokenizerParts& parts, const Json& config, const char* key,
            const std::string& source) {
  if (target) return;
  const std::string spelling = token_spelling(config, key, source);
  const std::int32_t id = spelling.empty() ? -1 : find_token(parts, spelling);
  if (id >= 0) target = id;
}

void set_special_ids(TokenizerParts& parts, const Json& config, const std::string& source) {
  set_id(parts.bos_id, parts, config, "bos_token", source);
  set_id(parts.eos_id, parts, config, "eos_token", source);
  set_id(parts.pad_id, parts, config, "pad_token", source);
  set_id(parts.unk_id, parts, config, "unk_token", source);
}

// The ids of "eos_token_id" and the like: a number, a list, or null.
std::vector<std::int32_t> id_list(const Json& config, const char* key, const std::string& source) {
  if (!config.contains(key) || config.at(key).is_null()) return {};
  const Json& value = config.at(key);
  std::vector<std::int32_t> ids;
  for (const Json& item : value.is_array() ? value : Json::array({value})) {
    GANTRY_CHECK(item.is_number_integer() && item.get<std::int64_t>() >= -1 && item.get<std::int64_t>() < (1ll << 31),
                 "{}: '{}' must hold token ids, found {}", source, key, item.dump());
    if (item.get<std::int64_t>() >= 0) ids.push_back(item.get<std::int32_t>());
  }
  return ids;
}

void apply_model_config(TokenizerParts& parts, const fs::path& path) {
  const Json config = read_object(path);
  const std::string source = path.string();
  const auto known = [&](std::int32_t id) {
    const auto& tokens = parts.added_tokens;
    return id < parts.model->vocabulary().size() ||
           std::any_of(tokens.begin(), tokens.end(), [id](const AddedToken& token) { return token.id == id; });
  };
  const auto first = [&](std::optional<std::int32_t>& target, const char* key) {
    const auto ids = id_list(config, key, source);
    if (!target && !ids.empty() && known(ids.front())) target = ids.front();
  };
  first(parts.bos_id, "bos_token_id");
  first(parts.eos_id, "eos_token_id");
  first(parts.pad_id, "pad_token_id");
  // Models reserve ids that their tokeniser lacks, so an unknown stop id is no fault of the folder.
  for (const std::int32_t id : id_list(config, "eos_token_id", source)) {
    if (known(id)) parts.stop_ids.push_back(id);
  }
}

std::string chat_template_of(const Json& config, const fs::path& directory, const std::string& source) {
  const fs::path file = directory / "chat_template.jinja";
  if (fs::is_regular_file(file)) return base::read_text_file(file, kMaxTemplateBytes);
  if (const Json other = read_object(directory / "chat_template.json"); other.contains("chat_template")) {
    return base::json_get<std::string>(other, "chat_template", (directory / "chat_template.json").string());
  }
  if (!config.contains("chat_template") || config.at("chat_template").is_null()) return "";
  const Json& value = config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  GANTRY_CHECK(value.is_array(), "{}: 'chat_template' must be a string or a list, found {}", source, value.type_name());
  std::string chosen;
  for (const Json& entry : value) {
    auto text = base::json_get<std::string>(entry, "template", source);
    if (chosen.empty() || base::json_get_or<std::string>(entry, "name", "", source) == "default")
      chosen = std::move(text);
  }
  return chosen;
}

std::vector<AddedToken> tokens_of_decoder_table(const Json& config, const std::string& source) {
  std::vector<AddedToken> tokens;
  if (!config.contains("added_tokens_decoder")) return tokens;
  const Json& table = config.at("added_tokens_decoder");
  GANTRY_CHECK(table.is_object(), "{}: 'added_tokens_decoder' must be an object, found {}", source, table.type_name());
  for (const auto& [key, entry] : table.items()) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    GANTRY_CHECK(error == std::errc() && end == key.data() + key.size() && id >= 0,
                 "{}: 'added_tokens_decoder' has the key '{}', expected a token id", source, key);
    tokens.push_back(added_token_from_json(entry, id, source));
  }
  return tokens;
}

std::vector<AddedToken> tokens_of_added_file(const fs::path& path) {
  std::vector<AddedToken> tokens;
  const Json table = read_object(path);
  for (const auto& [content, id] : table.items()) {
    GANTRY_CHECK(id.is_number_unsigned() && id.get<std::uint64_t>() < (1ull << 31),
                 "{}: the id of '{}' must be a whole number below 2^31", path.string(), content);
    tokens.push_back({id.get<std::int32_t>(), content});
  }
  return tokens;
}

}  // namespace

Json read_tokenizer_config(const fs::path& directory) { return read_object(directory / "tokenizer_config.json"); }

std::int32_t find_token(const TokenizerParts& parts, std::string_view token) {
  for (const AddedToken& added : parts.added_tokens) {
    if (added.content == token) return added.id;
  }
  return parts.model->vocabulary().find(token);
}

void apply_tokenizer_config(TokenizerParts& parts, const Json& config, const fs::path& directory) {
  const std::string source = (directory / "tokenizer_config.json").string();
  merge_added_tokens(parts, tokens_of_decoder_table(config, source), source);
  merge_added_tokens(parts, tokens_of_added_file(directory / "added_tokens.json"),
                     (directory / "added_tokens.json").string());
  set_special_ids(parts, config, source);
  set_special_ids(parts, read_object(directory / "special_tokens_map.json"),
                  (directory / "special_tokens_map.json").string());
  apply_model_config(parts, directory / "generation_config.json");
  apply_model_config(parts, directory / "config.json");
  parts.chat_template = chat_template_of(config, directory, source);
}

}  // namespace gantry::text
