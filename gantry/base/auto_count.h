#pragma once
// An option's value that is a number, or left to the program.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gantry/base/json.h"

namespace gantry::base {

class AutoCount {
 public:
  AutoCount(std::int64_t count = 0) : count_(count) {}  // NOLINT: a number is one
  /// "auto"
  static AutoCount automatic();
  /// "auto" or an integer; InputError naming `what` for anything else.
  static AutoCount parse(std::string_view text, std::string_view what);

  bool is_auto() const { return !count_; }
  /// InputError when it is "auto".
  std::int64_t count() const;
  std::string text() const { return count_ ? std::to_string(*count_) : "auto"; }

  bool operator==(const AutoCount&) const = default;

 private:
  std::optional<std::int64_t> count_;
};

/// A number or the string "auto".
template <class BasicJson>
void to_json(BasicJson& json, const AutoCount& value) {
  if (value.is_auto()) {
    json = "auto";
  } else {
    json = value.count();
  }
}
/// std::range_error for anything else, which json_get() turns into an InputError naming the field.
void from_json(const Json& json, AutoCount& value);

}  // namespace gantry::base
