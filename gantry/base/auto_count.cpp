#include "gantry/base/auto_count.h"

#include <charconv>

namespace gantry::base {

AutoCount AutoCount::automatic() {
  AutoCount result;
  result.count_.reset();
  return result;
}

AutoCount AutoCount::parse(std::string_view text, std::string_view what) {
  if (text == "auto") return automatic();
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  GANTRY_CHECK(error == std::errc() && end == text.data() + text.size(), "{} is '{}', expected an integer or 'auto'",
               what, text);
  return count;
}

std::int64_t AutoCount::count() const {
  GANTRY_CHECK(count_, "expected a number, found 'auto'");
  return *count_;
}

void from_json(const Json& json, AutoCount& value) {
  if (json.is_string()) {
    if (json.get<std::string>() != "auto") throw std::range_error("a number or auto");
    value = AutoCount::automatic();
  } else {
    value = internal::exact_get<std::int64_t>(json);
  }
}

}  // namespace gantry::base
