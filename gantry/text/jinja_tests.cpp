// What may stand after `is`.
#include <array>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

template <Kind kind>
bool is_kind(Interpreter&, const Value& value, Arguments&) {
  return value.is(kind);
}

template <Operator op>
bool compares(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("test", arguments, {"other"});
  return compare(op, value, bound.required(0), interpreter.budget());
}

bool is_defined(Interpreter&, const Value& value, Arguments&) { return !value.is_undefined(); }
bool is_integer(Interpreter&, const Value& value, Arguments&) { return value.is(Kind::kInt); }
bool is_number(Interpreter&, const Value& value, Arguments&) { return value.is_number(); }
bool is_true(Interpreter&, const Value& value, Arguments&) { return value.is(Kind::kBool) && value.as_bool(); }
bool is_false(Interpreter&, const Value& value, Arguments&) { return value.is(Kind::kBool) && !value.as_bool(); }

bool is_sequence(Interpreter&, const Value& value, Arguments&) {
  if (value.is(Kind::kList)) return value.as_list().flavour != Sequence::kLazy;
  return value.is_string() || value.is(Kind::kDict);
}

bool is_iterable(Interpreter&, const Value& value, Arguments&) {
  return value.is_string() || value.is(Kind::kList) || value.is(Kind::kDict) || value.is_undefined();
}

std::int64_t integral(const Value& value, const char* test) {
  if (!value.is_integral()) template_error("the test '{}' needs an int, found {}", test, value.type_name());
  return value.as_int();
}

bool is_odd(Interpreter&, const Value& value, Arguments&) { return (integral(value, "odd") & 1) != 0; }
bool is_even(Interpreter&, const Value& value, Arguments&) { return (integral(value, "even") & 1) == 0; }

bool is_divisible(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"});
  return !arithmetic(Operator::kModulo, value, bound.required(0), interpreter.budget()).truthy();
}

/// At least one cased character, and none of the other case.
bool all_cased(const Value& value, char32_t (*map)(char32_t)) {
  if (!value.is_string()) return false;
  bool any = false;
  for (std::size_t at = 0; at < value.as_string().size();) {
    const char32_t code = next_code(value.as_string(), at);
    if (map(code) != code) return false;
    any |= is_cased(code);
  }
  return any;
}

bool is_lower(Interpreter&, const Value& value, Arguments&) { return all_cased(value, to_lower); }
bool is_upper(Interpreter&, const Value& value, Arguments&) { return all_cased(value, to_upper); }

bool is_same(Interpreter&, const Value& value, Arguments& arguments) {
  return value.same_as(Bound("sameas", arguments, {"other"}).required(0));
}

bool names_filter(Interpreter&, const Value& value, Arguments&) {
  return value.is_string() && find_filter(value.as_string()) != nullptr;
}
bool names_test(Interpreter&, const Value& value, Arguments&) {
  return value.is_string() && find_test(value.as_string()) != nullptr;
}

}  // namespace

Test find_test(std::string_view name) {
  static constexpr std::pair<std::string_view, Test> kTests[] = {
      {"defined", is_defined},
      {"undefined", is_kind<Kind::kUndefined>},
      {"none", is_kind<Kind::kNone>},
      {"string", is_kind<Kind::kString>},
      {"mapping", is_kind<Kind::kDict>},
      {"boolean", is_kind<Kind::kBool>},
      {"float", is_kind<Kind::kFloat>},
      {"callable", is_kind<Kind::kCallable>},
      {"integer", is_integer},
      {"number", is_number},
      {"true", is_true},
      {"false", is_false},
      {"sequence", is_sequence},
      {"iterable", is_iterable},
      {"odd", is_odd},
      {"even", is_even},
      {"divisibleby", is_divisible},
      {"lower", is_lower},
      {"upper", is_upper},
      {"sameas", is_same},
      {"filter", names_filter},
      {"test", names_test},
      {"in", compares<Operator::kIn>},
      {"==", compares<Operator::kEqual>},
      {"eq", compares<Operator::kEqual>},
      {"equalto", compares<Operator::kEqual>},
      {"!=", compares<Operator::kNotEqual>},
      {"ne", compares<Operator::kNotEqual>},
      {"<", compares<Operator::kLess>},
      {"lt", compares<Operator::kLess>},
      {"lessthan", compares<Operator::kLess>},
      {"<=", compares<Operator::kLessEqual>},
      {"le", compares<Operator::kLessEqual>},
      {">", compares<Operator::kGreater>},
      {"gt", compares<Operator::kGreater>},
      {"greaterthan", compares<Operator::kGreater>},
      {">=", compares<Operator::kGreaterEqual>},
      {"ge", compares<Operator::kGreaterEqual>},
  };
  for (const auto& [key, test] : kTests) {
    if (key == name) return test;
  }
  return nullptr;
}

}  // namespace gantry::text::jinja
