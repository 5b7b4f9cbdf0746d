// Methods of str.
#include <algorithm>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

Value make_string(Interpreter& interpreter, std::string_view text) {
  interpreter.budget().bytes(text.size() + sizeof(std::string));
  return Value::string(std::string(text));
}

template <std::string (*map)(std::string_view)>
Value mapped_value(Interpreter& interpreter, const Value& self, Arguments&) {
  return make_string(interpreter, map(self.as_string()));
}

template <Side side>
Value stripped(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  interpreter.budget().step(self.as_string().size() / 64);
  return make_string(interpreter, strip(self.as_string(), side, bound.optional_text(0)));
}

/// split() without a separator: runs of whitespace.
std::vector<std::string_view> split_blank(std::string_view text, std::int64_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::kLeft);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<std::int64_t>(parts.size()) == limit) {
      parts.push_back(strip(text, Side::kRight));
      break;
    }
    std::size_t end = 0;
    for (std::size_t at = 0; at < text.size() && !is_unicode_space(next_code(text, at));) end = at;
    parts.push_back(text.substr(0, end));
    text = strip(text.substr(end), Side::kLeft);
  }
  return parts;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, std::int64_t limit,
                                       Budget& budget) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  while (limit < 0 || static_cast<std::int64_t>(parts.size()) < limit) {
    const std::size_t found = find_text(text, separator, begin, budget);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(begin, found - begin));
    begin = found + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_from_right(std::string_view text, std::string_view separator, std::int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<std::int64_t>(parts.size()) < limit) {
    const std::size_t found = text.rfind(separator);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value string_list(Interpreter& interpreter, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  interpreter.budget().bytes(parts.size() * sizeof(Value));
  for (const std::string_view part : parts) items.push_back(make_string(interpreter, part));
  return Value::list(std::move(items));
}

template <bool from_right>
Value split(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const std::string& text = self.as_string();
  const std::int64_t limit = bound.integer(1, -1);
  interpreter.budget().step(text.size() / 16);
  const std::string* separator = bound.optional_text(0);
  if (separator == nullptr) {
    if (from_right && limit >= 0) template_error("rsplit without a separator takes no limit here");
    return string_list(interpreter, split_blank(text, limit));
  }
  if (separator->empty()) template_error("split: the separator is empty");
  if (!from_right) return string_list(interpreter, split_at(text, *separator, limit, interpreter.budget()));
  interpreter.budget().step(text.size() / 16 * std::max<std::size_t>(1, separator->size() / 4));
  return string_list(interpreter, split_from_right(text, *separator, limit));
}

Value split_lines_method(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  if (bound.flag(0, false)) template_error("splitlines(keepends=True) is not supported");
  interpreter.budget().step(self.as_string().size() / 16);
  return string_list(interpreter, split_lines(self.as_string()));
}

template <bool at_end>
Value matches(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound(at_end ? "endswith" : "startswith", arguments, {"prefix"});
  const Value& pattern = bound.required(0);
  const auto fits = [&](const Value& part) {
    if (!part.is_string()) template_error("startswith and endswith take a str or a tuple of str");
    interpreter.budget().step(1 + part.as_string().size() / 64);
    return at_end ? self.as_string().ends_with(part.as_string()) : self.as_string().starts_with(part.as_string());
  };
  if (!pattern.is(Kind::kList)) return Value::boolean(fits(pattern));
  const auto& parts = pattern.as_list().items;
  return Value::boolean(std::any_of(parts.begin(), parts.end(), fits));
}

Value replace_in_string(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"});
  return Value::string(
      replace_text(self.as_string(), bound.text(0), bound.text(1), bound.integer(2, -1), interpreter.budget()));
}

Value join_strings(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"});
  std::string out;
  bool begun = false;
  for (const Value& item : iterate(bound.required(0), interpreter.budget())) {
    if (!item.is_string()) template_error("str.join needs strings, found {}", item.type_name());
    interpreter.budget().bytes(item.as_string().size() + self.as_string().size());
    if (std::exchange(begun, true)) out += self.as_string();
    out += item.as_string();
  }
  return Value::string(std::move(out));
}

template <bool required>
Value find(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound(required ? "index" : "find", arguments, {"sub"});
  const std::string& text = self.as_string();
  const std::size_t found = find_text(text, bound.text(0), 0, interpreter.budget());
  if (found != std::string::npos) {
    return Value::integer(static_cast<std::int64_t>(code_count(std::string_view(text).substr(0, found))));
  }
  if (required) template_error("str.index: the substring is not found");
  return Value::integer(-1);
}

Value rfind(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("rfind", arguments, {"sub"});
  const std::string& text = self.as_string();
  interpreter.budget().step(text.size() / 16 * std::max<std::size_t>(1, bound.text(0).size() / 4));
  const std::size_t found = text.rfind(bound.text(0));
  if (found == std::string::npos) return Value::integer(-1);
  return Value::integer(static_cast<std::int64_t>(code_count(std::string_view(text).substr(0, found))));
}

Value count(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"sub"});
  const std::string& text = self.as_string();
  const std::string& part = bound.text(0);
  if (part.empty()) return Value::integer(static_cast<std::int64_t>(code_count(text)) + 1);
  const auto pieces = split_at(text, part, -1, interpreter.budget());
  return Value::integer(static_cast<std::int64_t>(pieces.size()) - 1);
}

template <bool suffix>
Value removed(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound(suffix ? "removesuffix" : "removeprefix", arguments, {"affix"});
  std::string_view text = self.as_string();
  const std::string& part = bound.text(0);
  if (suffix ? text.ends_with(part) : text.starts_with(part)) {
    text = suffix ? text.substr(0, text.size() - part.size()) : text.substr(part.size());
  }
  return make_string(interpreter, text);
}

template <bool (*accepts)(char32_t)>
Value all_characters(Interpreter& interpreter, const Value& self, Arguments&) {
  const std::string& text = self.as_string();
  interpreter.budget().step(text.size() / 16);
  for (std::size_t at = 0; at < text.size();) {
    if (!accepts(next_code(text, at))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

Value partition(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"});
  const std::string& text = self.as_string();
  const std::string& separator = bound.text(0);
  if (separator.empty()) template_error("partition: the separator is empty");
  const std::size_t found = find_text(text, separator, 0, interpreter.budget());
  std::vector<Value> parts = {self, Value::string(""), Value::string("")};
  if (found != std::string::npos) {
    parts = {make_string(interpreter, std::string_view(text).substr(0, found)), Value::string(separator),
             make_string(interpreter, std::string_view(text).substr(found + separator.size()))};
  }
  return Value::list(std::move(parts), Sequence::kTuple);
}

template <const char* test>
Value cased(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  return Value::boolean(find_test(test)(interpreter, self, arguments));
}
constexpr char kUpper[] = "upper";
constexpr char kLower[] = "lower";

}  // namespace

Method find_string_method(std::string_view name) {
  static constexpr std::pair<std::string_view, Method> kMethods[] = {
      {"strip", stripped<Side::kBoth>},
      {"lstrip", stripped<Side::kLeft>},
      {"rstrip", stripped<Side::kRight>},
      {"split", split<false>},
      {"rsplit", split<true>},
      {"splitlines", split_lines_method},
      {"startswith", matches<false>},
      {"endswith", matches<true>},
      {"upper", mapped_value<upper>},
      {"lower", mapped_value<lower>},
      {"title", mapped_value<title>},
      {"capitalize", mapped_value<capitalize>},
      {"replace", replace_in_string},
      {"join", join_strings},
      {"find", find<false>},
      {"index", find<true>},
      {"rfind", rfind},
      {"count", count},
      {"removeprefix", removed<false>},
      {"removesuffix", removed<true>},
      {"partition", partition},
      {"isspace", all_characters<is_unicode_space>},
      {"isdigit", all_characters<is_digit>},
      {"isalpha", all_characters<is_letter>},
      {"isalnum", all_characters<is_alphanumeric>},
      {"isupper", cased<kUpper>},
      {"islower", cased<kLower>},
  };
  for (const auto& [key, method] : kMethods) {
    if (key == name) return method;
  }
  return nullptr;
}

}  // namespace gantry::text::jinja
