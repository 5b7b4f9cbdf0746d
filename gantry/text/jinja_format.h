#pragma once
// Values as text, in Python's spelling.
#include <optional>
#include <string>

#include "gantry/text/jinja_value.h"

namespace gantry::text::jinja {

/// Python's repr of a float: "1.0", "0.1", "1e+16", "nan".
std::string format_real(double value);

/// str(value); undefined is empty.
std::string to_text(const Value& value, Budget& budget);

/// repr(value), as shown inside of lists and dicts.
std::string to_repr(const Value& value, Budget& budget);

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // none: one line
  std::string item_separator = ", ";  // used on one line; an indented list breaks after ","
  std::string key_separator = ": ";
  bool sort_keys = false;
};
/// json.dumps(value, ...); throws TemplateError for values that JSON lacks.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace gantry::text::jinja
