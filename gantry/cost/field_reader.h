#pragma once
// Reads the fields of one JSON object of a profile or cluster file: no unknown field, no number out of range, and
// messages that name the file and the place in it.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::cost {

/// Both ends included.
struct NumberRange {
  double least = 0;
  double most = 0;
};
struct IntegerRange {
  std::int64_t least = 0;
  std::int64_t most = 0;
};

class FieldReader {
 public:
  /// `source` (a file) and `path` within it ("operators[3]", empty for the whole) start every message. InputError
  /// unless `object` is an object with no field but `known`. Keeps a reference to `object`.
  FieldReader(const base::Json& object, std::string_view source, std::string path,
              const std::vector<std::string_view>& known);

  bool has(std::string_view key) const { return object_.contains(key); }
  const base::Json& at(std::string_view key) const;
  const base::Json& list(std::string_view key, std::size_t most) const;
  std::string text(std::string_view key, std::size_t longest) const;
  double number(std::string_view key, NumberRange range) const;
  double number_or(std::string_view key, double fallback, NumberRange range) const;
  std::int64_t integer(std::string_view key, IntegerRange range) const;
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, IntegerRange range) const;
  /// Path of a field: "operators[3].sizes".
  std::string inside(std::string_view key) const;
  std::string inside(std::string_view key, std::size_t index) const;  ///< "operators[3]"
  const std::string& place() const { return place_; }                 ///< "profile.json: operators[3]"
  const std::string& source() const { return source_; }

 private:
  const base::Json& object_;
  std::string source_;
  std::string path_;
  std::string place_;
};

/// "schema" of a file must be the one that this version reads.
void check_schema(const base::Json& json, int schema, std::string_view source);
/// Names of profiles and clusters: 1 to 64 letters, digits, '.', '_' or '-'.
void check_name(std::string_view name, std::string_view place);

}  // namespace gantry::cost
