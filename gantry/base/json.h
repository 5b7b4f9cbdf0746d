#pragma once
// JSON: nlohmann's type plus readers whose errors name the file and the field. Only files that need the full type
// include this header; others forward-declare through nlohmann/json_fwd.hpp.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "gantry/base/check.h"

namespace gantry::base {

using Json = nlohmann::json;
/// Keeps the order of keys; for files that people read.
using OrderedJson = nlohmann::ordered_json;

/// Parses text; `source` (a file name) starts the message of the InputError that malformed text raises. Documents nested
/// deeper than 256 levels are refused.
Json parse_json(std::string_view text, std::string_view source);

/// Reads and parses a file of at most `max_bytes`.
Json read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{256} << 20);

/// obj[key] as T; throws InputError "<source>: '<key>' ..." when it is missing or of another type.
template <class T>
T json_get(const Json& object, std::string_view key, std::string_view source) {
  GANTRY_CHECK(object.is_object(), "{}: expected an object holding '{}', found {}", source, key, object.type_name());
  const auto found = object.find(key);
  GANTRY_CHECK(found != object.end(), "{}: '{}' is missing", source, key);
  try {
    return found->template get<T>();
  } catch (const nlohmann::json::exception&) {
    fail_input("{}: '{}' has the wrong type or range ({})", source, key, found->type_name());
  }
}

/// The same with a default for a missing or null field.
template <class T>
T json_get_or(const Json& object, std::string_view key, T fallback, std::string_view source) {
  GANTRY_CHECK(object.is_object(), "{}: expected an object, found {}", source, object.type_name());
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  return json_get<T>(object, key, source);
}

}  // namespace gantry::base
