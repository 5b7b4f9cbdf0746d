#include "gantry/cost/field_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "gantry/base/check.h"

namespace gantry::cost {

FieldReader::FieldReader(const base::Json& object, std::string_view source, std::string path,
                         const std::vector<std::string_view>& known)
    : object_(object),
      source_(source),
      path_(std::move(path)),
      place_(path_.empty() ? source_ : fmt::format("{}: {}", source_, path_)) {
  GANTRY_CHECK(object.is_object(), "{}: expected an object, found {}", place_, object.type_name());
  for (const auto& [key, ignored] : object.items()) {
    GANTRY_CHECK(std::ranges::find(known, key) != known.end(), "{}: unknown field '{}'; the fields are {}", place_, key,
                 fmt::join(known, ", "));
  }
}

const base::Json& FieldReader::at(std::string_view key) const {
  const auto found = object_.find(key);
  GANTRY_CHECK(found != object_.end(), "{}: '{}' is missing", place_, key);
  return *found;
}

const base::Json& FieldReader::list(std::string_view key, std::size_t most) const {
  const base::Json& value = at(key);
  GANTRY_CHECK(value.is_array(), "{}: '{}' must be a list, found {}", place_, key, value.type_name());
  GANTRY_CHECK(value.size() <= most, "{}: '{}' has {} entries, more than the {} accepted", place_, key, value.size(),
               most);
  return value;
}

std::string FieldReader::text(std::string_view key, std::size_t longest) const {
  auto value = base::json_get<std::string>(object_, key, place_);
  GANTRY_CHECK(!value.empty() && value.size() <= longest, "{}: '{}' must have 1 to {} bytes, found {}", place_, key,
               longest, value.size());
  return value;
}

double FieldReader::number(std::string_view key, NumberRange range) const {
  const auto value = base::json_get<double>(object_, key, place_);
  GANTRY_CHECK(value >= range.least && value <= range.most, "{}: '{}' must be from {} to {}, found {}", place_, key,
               range.least, range.most, value);
  return value;
}

double FieldReader::number_or(std::string_view key, double fallback, NumberRange range) const {
  return has(key) ? number(key, range) : fallback;
}

std::int64_t FieldReader::integer(std::string_view key, IntegerRange range) const {
  const auto value = base::json_get<std::int64_t>(object_, key, place_);
  GANTRY_CHECK(value >= range.least && value <= range.most, "{}: '{}' must be from {} to {}, found {}", place_, key,
               range.least, range.most, value);
  return value;
}

std::int64_t FieldReader::integer_or(std::string_view key, std::int64_t fallback, IntegerRange range) const {
  return has(key) ? integer(key, range) : fallback;
}

std::string FieldReader::inside(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

std::string FieldReader::inside(std::string_view key, std::size_t index) const {
  return fmt::format("{}[{}]", inside(key), index);
}

void check_schema(const base::Json& json, int schema, std::string_view source) {
  const auto found = base::json_get<std::int64_t>(json, "schema", source);
  GANTRY_CHECK(found == schema, "{}: 'schema' is {}; this version of gantry reads {}", source, found, schema);
}

void check_name(std::string_view name, std::string_view place) {
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  GANTRY_CHECK(!name.empty() && name.size() <= 64 && name.find_first_not_of(kAllowed) == std::string_view::npos,
               "{}: 'name' must be 1 to 64 letters, digits, '.', '_' or '-', found '{}'", place, name.substr(0, 80));
}

}  // namespace gantry::cost
