// Filters over lists, dicts and whatever else can be iterated.
#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

/// Sort and comparison key: strings in lower case unless `case_sensitive`.
Value fold_case(const Value& value, bool case_sensitive, Budget& budget) {
  if (case_sensitive || !value.is_string()) return value;
  budget.bytes(value.as_string().size());
  return Value::string(lower(value.as_string()));
}

Value sort_key(Interpreter& interpreter, const Value& item, const Value* attribute, bool case_sensitive) {
  const bool whole = attribute == nullptr || attribute->is(Kind::kNone);
  return fold_case(whole ? item : follow_attribute(interpreter, item, *attribute), case_sensitive,
                   interpreter.budget());
}

Value length_filter(Interpreter& interpreter, const Value& value, Arguments&) {
  if (value.is_string()) interpreter.budget().step(value.as_string().size() / 16);
  return Value::integer(static_cast<std::int64_t>(length(value)));
}

Value default_filter(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (bound.flag(1, false) && !value.truthy());
  if (!missing) return value;
  return bound.find(0) != nullptr ? *bound.find(0) : Value::string("");
}

Value first(Interpreter& interpreter, const Value& value, Arguments&) {
  const auto list = as_sequence(value, interpreter.budget());
  return list->items.empty() ? Value::undefined("the first item of an empty sequence") : list->items.front();
}

Value last(Interpreter& interpreter, const Value& value, Arguments&) {
  const auto list = as_sequence(value, interpreter.budget());
  return list->items.empty() ? Value::undefined("the last item of an empty sequence") : list->items.back();
}

Value list_filter(Interpreter& interpreter, const Value& value, Arguments&) {
  return Value::list(iterate(value, interpreter.budget()));
}

Value join_values(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  Budget& budget = interpreter.budget();
  const std::string separator = bound.find(0) != nullptr ? to_text(*bound.find(0), budget) : "";
  std::string out;
  bool begun = false;
  for (const Value& item : iterate(value, budget)) {
    if (std::exchange(begun, true)) out += separator;
    const Value* attribute = bound.find(1);
    const bool whole = attribute == nullptr || attribute->is(Kind::kNone);
    const std::size_t before = out.size();
    out += to_text(whole ? item : follow_attribute(interpreter, item, *attribute), budget);
    budget.bytes(out.size() - before + separator.size());
  }
  return Value::string(std::move(out));
}

Value pairs(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (!value.is_undefined()) {
    if (!value.is(Kind::kDict)) template_error("items needs a dict, found {}", value.type_name());
    budget.bytes(value.as_dict().size() * 4 * sizeof(Value));
    for (const auto& [key, item] : value.as_dict().items()) items.push_back(Value::list({key, item}, Sequence::kTuple));
  }
  return Value::list(std::move(items), Sequence::kLazy);
}

Value items(Interpreter& interpreter, const Value& value, Arguments&) { return pairs(value, interpreter.budget()); }

/// Stable sort by keys made once per item.
std::vector<Value> sorted(std::vector<std::pair<Value, Value>> keyed, bool reverse, Budget& budget) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less_than(b.first, a.first, budget) : less_than(a.first, b.first, budget);
  });
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return out;
}

Value dict_sort(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") template_error("dictsort: 'by' must be key or value, not '{}'", by);
  Budget& budget = interpreter.budget();
  const Value all = pairs(value, budget);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& pair : all.as_list().items) {
    const Value& key = pair.as_list().items[by == "key" ? 0 : 1];
    keyed.emplace_back(fold_case(key, bound.flag(0, false), budget), pair);
  }
  return Value::list(sorted(std::move(keyed), bound.flag(2, false), budget));
}

Value sort(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : iterate(value, budget)) {
    Value key;
    const Value* attribute = bound.find(2);
    if (attribute != nullptr && attribute->is_string() && attribute->as_string().find(',') != std::string::npos) {
      template_error("sort: several attributes are not supported");
    }
    key = sort_key(interpreter, item, attribute, bound.flag(1, false));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  return Value::list(sorted(std::move(keyed), bound.flag(0, false), budget));
}

Value unique(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  std::vector<Value> out;
  DictObject seen;
  for (Value& item : iterate(value, budget)) {
    const Value key = sort_key(interpreter, item, bound.find(1), bound.flag(0, false));
    if (seen.find(key) != nullptr) continue;
    seen.set(key, Value::none());
    out.push_back(std::move(item));
  }
  budget.bytes(out.size() * 4 * sizeof(Value));
  return Value::list(std::move(out), Sequence::kLazy);
}

Value reverse(Interpreter& interpreter, const Value& value, Arguments&) {
  Budget& budget = interpreter.budget();
  if (value.is_string()) {
    return slice(value, Value::none(), Value::none(), Value::integer(-1), budget);
  }
  auto all = iterate(value, budget);
  std::reverse(all.begin(), all.end());
  return Value::list(std::move(all), Sequence::kLazy);
}

Value sum(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  Budget& budget = interpreter.budget();
  Value total = bound.find(1) != nullptr ? *bound.find(1) : Value::integer(0);
  if (total.is_string()) template_error("sum: strings are joined with join, not added");
  for (const Value& item : iterate(value, budget)) {
    total = arithmetic(Operator::kAdd, total, sort_key(interpreter, item, bound.find(0), true), budget);
  }
  return total;
}

template <bool largest>
Value extreme(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const auto all = iterate(value, interpreter.budget());
  if (all.empty()) return Value::undefined("the extreme of an empty sequence");
  std::size_t best = 0;
  Value best_key = sort_key(interpreter, all[0], bound.find(1), bound.flag(0, false));
  for (std::size_t i = 1; i < all.size(); ++i) {
    Value key = sort_key(interpreter, all[i], bound.find(1), bound.flag(0, false));
    const bool better =
        largest ? less_than(best_key, key, interpreter.budget()) : less_than(key, best_key, interpreter.budget());
    if (!better) continue;
    best = i;
    best_key = std::move(key);
  }
  return all[best];
}

Value map_attribute(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  const Bound bound("map", arguments, {"attribute", "default"});
  std::vector<Value> out;
  for (const Value& item : iterate(value, interpreter.budget())) {
    Value found = follow_attribute(interpreter, item, bound.required(0));
    if (found.is_undefined() && bound.find(1) != nullptr) found = *bound.find(1);
    out.push_back(std::move(found));
  }
  return Value::list(std::move(out), Sequence::kLazy);
}

Value map(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  if (arguments.positional.empty()) return map_attribute(interpreter, value, arguments);
  if (!arguments.positional[0].is_string()) template_error("map needs the name of a filter");
  const std::string name = arguments.positional[0].as_string();
  arguments.positional.erase(arguments.positional.begin());
  std::vector<Value> out;
  for (const Value& item : iterate(value, interpreter.budget())) {
    Arguments own = arguments;
    out.push_back(interpreter.apply_filter(name, item, own));
  }
  return Value::list(std::move(out), Sequence::kLazy);
}

/// select, reject, selectattr and rejectattr: keeps the items for which the test gives `wanted`.
template <bool wanted, bool by_attribute>
Value filter_items(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  Value attribute;
  auto& given = arguments.positional;
  if (by_attribute) {
    if (given.empty()) template_error("selectattr and rejectattr need an attribute");
    attribute = given[0];
    given.erase(given.begin());
  }
  std::string test;
  if (!given.empty()) {
    if (!given[0].is_string()) template_error("the name of a test must be a str, found {}", given[0].type_name());
    test = given[0].as_string();
    given.erase(given.begin());
  }
  std::vector<Value> out;
  for (const Value& item : iterate(value, interpreter.budget())) {
    const Value subject = by_attribute ? follow_attribute(interpreter, item, attribute) : item;
    Arguments own = arguments;
    const bool passes = test.empty() ? subject.truthy() : interpreter.apply_test(test, subject, own);
    if (passes == wanted) out.push_back(item);
  }
  return Value::list(std::move(out), Sequence::kLazy);
}

Value attribute_filter(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  return interpreter.attribute(value, Bound("attr", arguments, {"name"}).text(0));
}

}  // namespace

Value follow_attribute(Interpreter& interpreter, const Value& value, const Value& attribute) {
  if (!attribute.is_string()) return get_item(value, attribute, interpreter.budget());
  Value found = value;
  std::string_view rest = attribute.as_string();
  for (;;) {
    const auto dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    std::int64_t index = 0;
    const auto number = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = number.ec == std::errc() && number.ptr == part.data() + part.size();
    const Value key = is_index ? Value::integer(index) : Value::string(std::string(part));
    Value next = get_item(found, key, interpreter.budget());
    if (next.is_undefined() && key.is_string()) next = interpreter.attribute(found, key.as_string());
    found = std::move(next);
    if (dot == std::string_view::npos) return found;
    rest.remove_prefix(dot + 1);
  }
}

Filter find_sequence_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Filter> kFilters[] = {
      {"length", length_filter},
      {"count", length_filter},
      {"default", default_filter},
      {"d", default_filter},
      {"first", first},
      {"last", last},
      {"list", list_filter},
      {"join", join_values},
      {"items", items},
      {"dictsort", dict_sort},
      {"sort", sort},
      {"unique", unique},
      {"reverse", reverse},
      {"sum", sum},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"map", map},
      {"select", filter_items<true, false>},
      {"reject", filter_items<false, false>},
      {"selectattr", filter_items<true, true>},
      {"rejectattr", filter_items<false, true>},
      {"attr", attribute_filter},
  };
  for (const auto& [key, filter] : kFilters) {
    if (key == name) return filter;
  }
  return nullptr;
}

Filter find_filter(std::string_view name) {
  if (const Filter filter = find_text_filter(name)) return filter;
  if (const Filter filter = find_sequence_filter(name)) return filter;
  return find_number_filter(name);
}

}  // namespace gantry::text::jinja
