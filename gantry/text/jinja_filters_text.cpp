// Filters over strings, and tojson.
#include <cstring>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

/// A filter that maps the text of any value.
template <std::string (*map)(std::string_view)>
Value map_text(Interpreter& interpreter, const Value& value, Arguments&) {
  const std::string text = to_text(value, interpreter.budget());
  interpreter.budget().bytes(text.size());
  return Value::string(map(text));
}

/// Jinja's own title: words begin after blanks, hyphens and opening brackets.
std::string title_words(std::string_view text) {
  std::string out;
  std::size_t begin = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    if (at < text.size() && std::strchr(" \t\n\r\v\f-({[<", text[at]) == nullptr) continue;
    out += capitalize(text.substr(begin, at - begin));
    if (at < text.size()) out += text[at];
    begin = at + 1;
  }
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

Value trim(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  const std::string text = to_text(value, interpreter.budget());
  interpreter.budget().bytes(text.size());
  return Value::string(std::string(strip(text, Side::kBoth, bound.optional_text(0))));
}

Value replace_text(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"});
  Budget& budget = interpreter.budget();
  const std::int64_t count = bound.find(2) != nullptr && bound.find(2)->is(Kind::kNone) ? -1 : bound.integer(2, -1);
  return Value::string(replace_text(to_text(value, budget), to_text(bound.required(0), budget),
                                    to_text(bound.required(1), budget), count, budget));
}

Value indent(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  Budget& budget = interpreter.budget();
  std::string margin(4, ' ');
  if (const Value* width = bound.find(0); width != nullptr && width->is_string()) {
    margin = width->as_string();
  } else if (width != nullptr) {
    const auto count = static_cast<std::size_t>(std::max<std::int64_t>(bound.integer(0, 4), 0));
    budget.bytes(count);
    margin.assign(count, ' ');
  }
  const std::string text = to_text(value, budget) + "\n";
  const auto lines = split_lines(text);
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i == 0 ? bound.flag(1, false) : bound.flag(2, false) || !lines[i].empty();
    budget.bytes(lines[i].size() + 1 + (indented ? margin.size() : 0));
    if (i != 0) out += '\n';
    if (indented) out += margin;
    out += lines[i];
  }
  return Value::string(std::move(out));
}

Value to_string_filter(Interpreter& interpreter, const Value& value, Arguments&) {
  return value.is_string() ? value : Value::string(to_text(value, interpreter.budget()));
}

Value word_count(Interpreter& interpreter, const Value& value, Arguments&) {
  const std::string text = to_text(value, interpreter.budget());
  interpreter.budget().step(text.size() / 16);
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    const bool space = is_unicode_space(next_code(text, at));
    words += !space && !inside ? 1 : 0;
    inside = !space;
  }
  return Value::integer(words);
}

Value to_json_filter(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (const Value* width = bound.find(1); width != nullptr && width->is_string()) {
    style.indent = width->as_string();
  } else if (width != nullptr && !width->is(Kind::kNone)) {
    const std::int64_t count = std::max<std::int64_t>(bound.integer(1, 0), 0);
    if (count > 1000) template_error("tojson: an indent of {} is too wide", count);
    style.indent = std::string(static_cast<std::size_t>(count), ' ');
  }
  if (style.indent) style.item_separator.assign(1, ',');
  if (const Value* separators = bound.find(2); separators != nullptr && !separators->is(Kind::kNone)) {
    const auto parts = iterate(*separators, interpreter.budget());
    if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string()) {
      template_error("tojson: 'separators' must be two strings");
    }
    style.item_separator = parts[0].as_string();
    style.key_separator = parts[1].as_string();
  }
  return Value::string(to_json(value, style, interpreter.budget()));
}

}  // namespace

std::vector<std::string_view> split_lines(std::string_view text) {
  // The breaks that Python knows: \n \r \r\n \v \f, file, group and record separators, NEL, U+2028, U+2029.
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = at;
    const char32_t code = next_code(text, at);
    const bool breaks = (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
                        code == 0x2028 || code == 0x2029;
    if (!breaks) continue;
    if (code == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, end - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::size_t find_text(std::string_view text, std::string_view part, std::size_t from, Budget& budget) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (found == nullptr) {
    budget.step(1 + (text.size() - from + part.size()) / 16);
    return std::string_view::npos;
  }
  const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
  budget.step(1 + (at - from + part.size()) / 16);
  return at;
}

std::string replace_text(std::string_view text, std::string_view from, std::string_view to, std::int64_t count,
                         Budget& budget) {
  std::string out;
  std::size_t at = 0;
  budget.bytes(text.size());
  while (count != 0) {
    std::size_t found = 0;
    if (from.empty()) {  // as in Python, between all characters
      found = at;
    } else if ((found = find_text(text, from, at, budget)) == std::string_view::npos) {
      break;
    }
    budget.bytes(to.size() + 1);
    out.append(text.substr(at, found - at)).append(to);
    at = found + from.size();
    --count;
    if (from.empty()) {
      if (at >= text.size()) break;
      std::size_t next = at;
      next_code(text, next);
      out.append(text.substr(at, next - at));
      at = next;
    }
  }
  return out.append(text.substr(at));
}

Filter find_text_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Filter> kFilters[] = {
      {"trim", trim},
      {"upper", map_text<upper>},
      {"lower", map_text<lower>},
      {"capitalize", map_text<capitalize>},
      {"title", map_text<title_words>},
      {"replace", replace_text},
      {"indent", indent},
      {"string", to_string_filter},
      {"safe", to_string_filter},
      {"escape", map_text<escape_html>},
      {"e", map_text<escape_html>},
      {"wordcount", word_count},
      {"tojson", to_json_filter},
  };
  for (const auto& [key, filter] : kFilters) {
    if (key == name) return filter;
  }
  return nullptr;
}

}  // namespace gantry::text::jinja
