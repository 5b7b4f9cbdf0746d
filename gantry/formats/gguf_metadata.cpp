// Typed access to GGUF metadata.
#include <limits>
#include <type_traits>

#include "gantry/base/check.h"
#include "gantry/formats/gguf.h"
#include "gantry/formats/gguf_internal.h"

namespace gantry::formats {
namespace {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

template <class T>
constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

std::string_view kind(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::string_view {
        using T = std::decay_t<decltype(held)>;
        if constexpr (IsVector<T>::value) {
          return "an array";
        } else if constexpr (std::is_same_v<T, std::string>) {
          return "a string";
        } else if constexpr (std::is_same_v<T, bool>) {
          return "a boolean";
        } else if constexpr (std::is_integral_v<T>) {
          return "an integer out of range";
        } else {
          return "a fractional number";
        }
      },
      value);
}

[[noreturn]] void wrong_type(const std::string& source, std::string_view key, std::string_view wanted,
                             const GgufValue& found) {
  base::fail_input("{}: metadata '{}': expected {}, found {}", source, key, wanted, kind(found));
}

template <class T>
const T& held(const GgufValue& value, std::string_view key, std::string_view wanted, const std::string& source) {
  const T* result = std::get_if<T>(&value);
  if (result == nullptr) wrong_type(source, key, wanted, value);
  return *result;
}

}  // namespace

std::optional<std::int64_t> internal::gguf_integer(const GgufValue& value) {
  return std::visit(
      [](const auto& number) -> std::optional<std::int64_t> {
        using T = std::decay_t<decltype(number)>;
        if constexpr (kIsInteger<T>) {
          if (std::in_range<std::int64_t>(number)) return static_cast<std::int64_t>(number);
        }
        return std::nullopt;
      },
      value);
}

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufValue& GgufFile::require(std::string_view key) const {
  const GgufValue* value = find_value(key);
  GANTRY_CHECK(value != nullptr, "{}: metadata '{}' is missing", source_, key);
  return *value;
}

std::int64_t GgufFile::get_i64(std::string_view key) const {
  const GgufValue& value = require(key);
  const auto number = internal::gguf_integer(value);
  if (!number) wrong_type(source_, key, "an integer", value);
  return *number;
}

std::int64_t GgufFile::get_i64(std::string_view key, std::int64_t fallback) const {
  return has(key) ? get_i64(key) : fallback;
}

std::uint32_t GgufFile::get_u32(std::string_view key) const {
  const GgufValue& value = require(key);
  const auto number = internal::gguf_integer(value);
  if (!number || !std::in_range<std::uint32_t>(*number)) {
    wrong_type(source_, key, "an integer from 0 to 2^32 - 1", value);
  }
  return static_cast<std::uint32_t>(*number);
}

std::uint32_t GgufFile::get_u32(std::string_view key, std::uint32_t fallback) const {
  return has(key) ? get_u32(key) : fallback;
}

float GgufFile::get_f32(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* single = std::get_if<float>(&value)) return *single;
  if (const auto* wide = std::get_if<double>(&value)) return static_cast<float>(*wide);
  const auto number = internal::gguf_integer(value);
  if (!number) wrong_type(source_, key, "a number", value);
  return static_cast<float>(*number);
}

float GgufFile::get_f32(std::string_view key, float fallback) const { return has(key) ? get_f32(key) : fallback; }

bool GgufFile::get_bool(std::string_view key) const { return held<bool>(require(key), key, "a boolean", source_); }

bool GgufFile::get_bool(std::string_view key, bool fallback) const { return has(key) ? get_bool(key) : fallback; }

const std::string& GgufFile::get_string(std::string_view key) const {
  return held<std::string>(require(key), key, "a string", source_);
}

std::string GgufFile::get_string(std::string_view key, std::string fallback) const {
  if (has(key)) return get_string(key);
  return fallback;
}

const std::vector<std::string>& GgufFile::get_string_array(std::string_view key) const {
  return held<std::vector<std::string>>(require(key), key, "an array of strings", source_);
}

std::vector<std::int64_t> GgufFile::get_int_array(std::string_view key) const {
  const GgufValue& value = require(key);
  std::vector<std::int64_t> result;
  const bool fits = std::visit(
      [&](const auto& array) {
        if constexpr (IsVector<std::decay_t<decltype(array)>>::value) {
          using T = typename std::decay_t<decltype(array)>::value_type;
          if constexpr (kIsInteger<T>) {
            for (const T number : array) {
              if (!std::in_range<std::int64_t>(number)) return false;
              result.push_back(static_cast<std::int64_t>(number));
            }
            return true;
          }
        }
        return false;
      },
      value);
  if (!fits) wrong_type(source_, key, "an array of integers", value);
  return result;
}

std::vector<float> GgufFile::get_f32_array(std::string_view key) const {
  const GgufValue& value = require(key);
  if (const auto* wide = std::get_if<std::vector<double>>(&value)) return {wide->begin(), wide->end()};
  return held<std::vector<float>>(value, key, "an array of fractional numbers", source_);
}

}  // namespace gantry::formats
