#pragma once
// Operators, comparison, indexing and iteration over values, with Python's meaning. All throw TemplateError.
#include "gantry/text/jinja_ast.h"
#include "gantry/text/jinja_value.h"

namespace gantry::text::jinja {

/// Arithmetic of kAdd ... kPower.
Value arithmetic(Operator op, const Value& left, const Value& right, Budget& budget);
Value negate(const Value& value);

bool equal(const Value& left, const Value& right, Budget& budget);
/// left < right for numbers, strings, lists and booleans; anything else is an error.
bool less_than(const Value& left, const Value& right, Budget& budget);
/// item in container.
bool contains(const Value& container, const Value& item, Budget& budget);
/// One comparison of kEqual ... kNotIn.
bool compare(Operator op, const Value& left, const Value& right, Budget& budget);

/// The elements that a loop sees: items, keys of a dict, characters of a string, nothing for undefined.
std::vector<Value> iterate(const Value& value, Budget& budget);
/// As iterate(), without a copy when the value is a list already.
std::shared_ptr<ListObject> as_sequence(const Value& value, Budget& budget);
std::size_t length(const Value& value);

/// value[key]; undefined when absent, an error when `value` is undefined itself.
Value get_item(const Value& value, const Value& key, Budget& budget);
/// value[start:stop:step]; the three may be None.
Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget);

/// Throws for an undefined value that is used as if it were there.
void check_defined(const Value& value, std::string_view use);

}  // namespace gantry::text::jinja
