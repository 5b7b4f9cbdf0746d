#include "gantry/text/jinja_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"
#include "gantry/text/utf8.h"

namespace gantry::text::jinja {
namespace {

std::string repr_string(const std::string& text) {
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t code = next_code(text, at);
    if (code == '\\' || code == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (code != kInvalidCodePoint && !is_printable(code)) {
      const auto number = static_cast<std::uint32_t>(code);
      out += number < 0x100     ? fmt::format("\\x{:02x}", number)
             : number < 0x10000 ? fmt::format("\\u{:04x}", number)
                                : fmt::format("\\U{:08x}", number);
    } else {
      out.append(text, begin, at - begin);
    }
  }
  return out + quote;
}

void append_repr(const Value& value, std::string& out, Budget& budget, int depth);

void append_items(const Value& value, std::string& out, Budget& budget, int depth) {
  const ListObject& list = value.as_list();
  const bool tuple = list.flavour == Sequence::kTuple;
  out += tuple ? '(' : '[';
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i != 0) out += ", ";
    append_repr(list.items[i], out, budget, depth + 1);
  }
  if (tuple && list.items.size() == 1) out += ',';
  out += tuple ? ')' : ']';
}

void append_dict(const DictObject& dict, std::string& out, Budget& budget, int depth) {
  out += '{';
  bool first = true;
  for (const auto& [key, item] : dict.items()) {
    if (!std::exchange(first, false)) out += ", ";
    append_repr(key, out, budget, depth + 1);
    out += ": ";
    append_repr(item, out, budget, depth + 1);
  }
  out += '}';
}

void append_repr(const Value& value, std::string& out, Budget& budget, int depth) {
  if (depth > kMaxNesting) template_error("a value nests too deeply to be printed");
  budget.step();
  budget.bytes(2);
  const std::size_t before = out.size();
  switch (value.kind()) {
    case Kind::kUndefined: out += "Undefined"; break;
    case Kind::kString: out += repr_string(value.as_string()); break;
    case Kind::kList: append_items(value, out, budget, depth); return;
    case Kind::kDict: append_dict(value.as_dict(), out, budget, depth); return;
    case Kind::kNamespace:
      out += "<Namespace ";
      append_dict(value.as_namespace().attributes, out, budget, depth);
      out += '>';
      return;
    default: out += to_text(value, budget); return;
  }
  budget.bytes(out.size() - before);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxNesting) template_error("a value nests too deeply for tojson");
    budget_.step();
    budget_.bytes(2);
    const std::size_t before = out.size();
    switch (value.kind()) {
      case Kind::kNone: out += "null"; break;
      case Kind::kBool: out += value.as_bool() ? "true" : "false"; break;
      case Kind::kInt: out += std::to_string(value.as_int()); break;
      case Kind::kFloat: write_real(value.as_double()); break;
      case Kind::kString: write_string(value.as_string()); break;
      case Kind::kList:
        if (value.as_list().flavour == Sequence::kLazy) refuse(value);
        write_list(value.as_list(), depth);
        return;
      case Kind::kDict: write_dict(value.as_dict(), depth); return;
      default: refuse(value);
    }
    budget_.bytes(out.size() - before);
  }

  std::string out;

 private:
  [[noreturn]] static void refuse(const Value& value) {
    if (value.is_undefined()) template_error("tojson: the value '{}' is undefined", value.undefined_hint());
    template_error("tojson: a {} has no JSON form", value.type_name());
  }

  void write_real(double value) {
    out += std::isnan(value) ? "NaN" : std::isinf(value) ? (value > 0 ? "Infinity" : "-Infinity") : format_real(value);
  }

  void write_unicode_escape(std::uint32_t code) {
    if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", code);
    } else {
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff));
    }
  }

  void write_string(const std::string& text) {
    static constexpr std::string_view kFrom = "\"\\\n\r\t\b\f";
    static constexpr std::string_view kTo = "\"\\nrtbf";
    out += '"';
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      const char32_t code = next_code(text, at);
      const auto known = code < 0x80 ? kFrom.find(static_cast<char>(code)) : std::string_view::npos;
      if (known != std::string_view::npos) {
        out += '\\';
        out += kTo[known];
      } else if (code < 0x20 || (style_.ensure_ascii && code > 0x7e && code != kInvalidCodePoint)) {
        write_unicode_escape(code);
      } else {
        out.append(text, begin, at - begin);
      }
    }
    out += '"';
  }

  void break_line(int depth) {
    if (!style_.indent) return;
    out += '\n';
    const std::size_t before = out.size();
    for (int i = 0; i < depth; ++i) out += *style_.indent;
    budget_.bytes(out.size() - before + 1);
  }

  void separate(bool& first, int depth) {
    if (!std::exchange(first, false)) out += style_.item_separator;
    break_line(depth);
  }

  void write_list(const ListObject& list, int depth) {
    out += '[';
    bool first = true;
    for (const Value& item : list.items) {
      separate(first, depth + 1);
      write(item, depth + 1);
    }
    if (!first) break_line(depth);
    out += ']';
  }

  void write_key(const Value& key) {
    if (key.is_string()) {
      write_string(key.as_string());
    } else {
      out += '"';
      write(key, 0);
      out += '"';
    }
  }

  void write_dict(const DictObject& dict, int depth) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.items()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less_than(a->first, b->first, budget_); });
    }
    out += '{';
    bool first = true;
    for (const auto* entry : entries) {
      separate(first, depth + 1);
      write_key(entry->first);
      out += style_.key_separator;
      write(entry->second, depth + 1);
    }
    if (!first) break_line(depth);
    out += '}';
  }

  const JsonStyle& style_;
  Budget& budget_;
};

}  // namespace

std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 32> buffer;
  const double size = std::abs(value);
  const bool plain = value == 0 || (size >= 1e-4 && size < 1e16);
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                    plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer.data(), result.ptr);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string to_text(const Value& value, Budget& budget) {
  switch (value.kind()) {
    case Kind::kUndefined: return "";
    case Kind::kNone: return "None";
    case Kind::kBool: return value.as_bool() ? "True" : "False";
    case Kind::kInt: return std::to_string(value.as_int());
    case Kind::kFloat: return format_real(value.as_double());
    case Kind::kString: return value.as_string();
    case Kind::kCallable: return "<function " + value.as_callable().name + ">";
    case Kind::kLoop: {
      const LoopObject& loop = value.as_loop();
      return fmt::format("<LoopContext {}/{}>", loop.index0 + 1, loop.items->items.size());
    }
    default: return to_repr(value, budget);
  }
}

std::string to_repr(const Value& value, Budget& budget) {
  std::string out;
  append_repr(value, out, budget, 0);
  return out;
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace gantry::text::jinja
