#pragma once
// The tables of built-in filters, tests, methods and global functions.
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "gantry/text/jinja_interpreter.h"

namespace gantry::text::jinja {

/// The arguments of one call bound to parameter names; too many or unknown ones raise TemplateError.
class Bound {
 public:
  Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> names);

  /// The argument, or null where it was not passed.
  const Value* find(std::size_t index) const { return values_[index]; }
  /// The argument; an error where it was not passed.
  const Value& required(std::size_t index) const;
  bool flag(std::size_t index, bool fallback) const;
  std::int64_t integer(std::size_t index, std::int64_t fallback) const;
  /// A str argument; an error for another type.
  const std::string& text(std::size_t index) const;
  std::string text(std::size_t index, std::string_view fallback) const;
  /// Null where it was not passed or is None.
  const std::string* optional_text(std::size_t index) const;

 private:
  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

using Filter = Value (*)(Interpreter&, const Value&, Arguments&);
using Test = bool (*)(Interpreter&, const Value&, Arguments&);
using Method = Value (*)(Interpreter&, const Value& self, Arguments&);

/// Null for an unknown name.
Filter find_filter(std::string_view name);
Filter find_text_filter(std::string_view name);
Filter find_number_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);
Test find_test(std::string_view name);
/// Methods of str, list, tuple, dict and loop.
Method find_method(const Value& self, std::string_view name);
Method find_string_method(std::string_view name);

/// range, dict, namespace, raise_exception, strftime_now, joiner, cycler.
void define_globals(Scope& scope);

/// Follows "a.b.0" from a value; `attribute` is a str or an int.
Value follow_attribute(Interpreter& interpreter, const Value& value, const Value& attribute);

/// Splits into lines as str.splitlines does.
std::vector<std::string_view> split_lines(std::string_view text);

/// text with `from` replaced by `to`, at most `count` times (negative: all).
std::string replace_text(std::string_view text, std::string_view from, std::string_view to, std::int64_t count,
                         Budget& budget);

/// Position of `part` in `text` at or after `from`, in linear time.
std::size_t find_text(std::string_view text, std::string_view part, std::size_t from, Budget& budget);

}  // namespace gantry::text::jinja
