#pragma once
// JSON: nlohmann's type plus readers whose errors name the file and the field. Only files that need the full type
// include this header; others forward-declare through nlohmann/json_fwd.hpp.
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::base {

using Json = nlohmann::json;
/// Keeps the order of keys; for files that people read.
using OrderedJson = nlohmann::ordered_json;

/// Parses text; `source` (a file name) starts the message of the InputError that malformed text raises. Documents
/// nested deeper than 256 levels are refused.
Json parse_json(std::string_view text, std::string_view source);

/// Reads and parses a file of at most `max_bytes`.
Json read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{256} << 20);

namespace internal {

template <class T>
struct ElementOf {
  using type = void*;
};
template <class T>
struct ElementOf<std::vector<T>> {
  using type = T;
};

/// nlohmann's get<> wraps integers that do not fit, cuts fractions and takes booleans for numbers; this refuses them.
template <class T>
T exact_get(const Json& value) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    using Limits = std::numeric_limits<T>;
    if (value.is_number_unsigned() && std::in_range<T>(value.get<std::uint64_t>())) return value.get<T>();
    if (value.is_number_integer() && !value.is_number_unsigned() && std::in_range<T>(value.get<std::int64_t>())) {
      return value.get<T>();
    }
    if (value.is_number_float()) {  // 2.0 is a fine 2
      const auto real = value.get<double>();
      // -min is a power of two, hence exact where max would round up.
      const double bound = Limits::is_signed ? -static_cast<double>(Limits::min()) : std::ldexp(1.0, Limits::digits);
      if (std::trunc(real) == real && real < bound && real >= static_cast<double>(Limits::min())) {
        return static_cast<T>(real);
      }
    }
    throw std::range_error("integer");
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) throw std::range_error("number");
    return value.get<T>();
  } else if constexpr (std::is_same_v<T, std::vector<typename ElementOf<T>::type>>) {
    if (!value.is_array()) throw std::range_error("list");
    T list;
    list.reserve(value.size());
    for (const auto& item : value) list.push_back(exact_get<typename T::value_type>(item));
    return list;
  } else {
    return value.template get<T>();
  }
}

}  // namespace internal

/// obj[key] as T; throws InputError "<source>: '<key>' ..." when it is missing, of another type, or a number that T
/// cannot hold exactly (integers) - lists element by element.
template <class T>
T json_get(const Json& object, std::string_view key, std::string_view source) {
  GANTRY_CHECK(object.is_object(), "{}: expected an object holding '{}', found {}", source, key, object.type_name());
  const auto found = object.find(key);
  GANTRY_CHECK(found != object.end(), "{}: '{}' is missing", source, key);
  try {
    return internal::exact_get<T>(*found);
  } catch (const nlohmann::json::exception&) {
  } catch (const std::range_error&) {
  }
  fail_input("{}: '{}' has the wrong type or range ({})", source, key, found->type_name());
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
