// Methods of dict, list, tuple and loop. Those that would change a value, list.append apart, do not exist for
// templates.
#include <algorithm>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_operations.h"

namespace gantry::text::jinja {
namespace {

Value dict_get(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"});
  const Value& key = bound.required(0);
  if (key.is_string()) interpreter.budget().step(key.as_string().size() / 16);
  if (!key.is_undefined()) {
    if (const Value* found = self.as_dict().find(key)) return *found;
  }
  return bound.find(1) != nullptr ? *bound.find(1) : Value::none();
}

Value dict_items(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  Value all = find_filter("items")(interpreter, self, arguments);
  all.as_list().flavour = Sequence::kList;  // a view is false when empty, unlike a generator
  return all;
}

Value dict_keys(Interpreter& interpreter, const Value& self, Arguments&) {
  return Value::list(iterate(self, interpreter.budget()));
}

Value dict_values(Interpreter& interpreter, const Value& self, Arguments&) {
  std::vector<Value> values;
  for (const auto& [key, value] : self.as_dict().items()) values.push_back(value);
  interpreter.budget().bytes(values.size() * sizeof(Value));
  return Value::list(std::move(values));
}

Value dict_copy(Interpreter& interpreter, const Value& self, Arguments&) {
  interpreter.budget().bytes(self.as_dict().size() * 4 * sizeof(Value));
  return Value::dict(self.as_dict());
}

Value list_append(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("append", arguments, {"object"});
  const Value item = bound.required(0);
  ListObject& list = self.as_list();
  const int nesting = std::max(list.nesting, item.nesting() + 1);
  if (nesting > kMaxNesting) template_error("lists nest deeper than {} levels", kMaxNesting);
  interpreter.budget().bytes(2 * sizeof(Value));
  if (!std::exchange(list.tracked, true)) interpreter.track(self.list_pointer());
  list.nesting = nesting;
  list.items.push_back(item);
  return Value::none();
}

Value list_index(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {"value"});
  const auto& items = self.as_list().items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], bound.required(0), interpreter.budget())) return Value::integer(static_cast<std::int64_t>(i));
  }
  template_error("list.index: the value is not in the list");
}

Value list_count(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"value"});
  std::int64_t count = 0;
  for (const Value& item : self.as_list().items) count += equal(item, bound.required(0), interpreter.budget()) ? 1 : 0;
  return Value::integer(count);
}

Value list_copy(Interpreter& interpreter, const Value& self, Arguments&) {
  return Value::list(iterate(self, interpreter.budget()));
}

Value loop_cycle(Interpreter&, const Value& self, Arguments& arguments) {
  const auto& choices = arguments.positional;
  if (choices.empty()) template_error("loop.cycle needs values");
  return choices[static_cast<std::size_t>(self.as_loop().index0) % choices.size()];
}

Value loop_changed(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  Value now = Value::string(to_repr(Value::list(arguments.positional), interpreter.budget()));
  LoopObject& loop = self.as_loop();
  const bool changed = loop.last_changed.is_undefined() || loop.last_changed.as_string() != now.as_string();
  loop.last_changed = std::move(now);
  return Value::boolean(changed);
}

struct Entry {
  std::string_view name;
  Method method;
};
constexpr Entry kDictMethods[] = {
    {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}, {"copy", dict_copy}};
constexpr Entry kListMethods[] = {
    {"append", list_append}, {"index", list_index}, {"count", list_count}, {"copy", list_copy}};
constexpr Entry kLoopMethods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};

template <std::size_t count>
Method pick(const Entry (&entries)[count], std::string_view name) {
  for (const Entry& entry : entries) {
    if (entry.name == name) return entry.method;
  }
  return nullptr;
}

}  // namespace

Method find_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
    case Kind::kString: return find_string_method(name);
    case Kind::kDict: return pick(kDictMethods, name);
    case Kind::kList:
      if (self.as_list().flavour == Sequence::kLazy) return nullptr;
      if (self.as_list().flavour == Sequence::kTuple && (name == "append" || name == "copy")) return nullptr;
      return pick(kListMethods, name);
    case Kind::kLoop: return pick(kLoopMethods, name);
    default: return nullptr;
  }
}

}  // namespace gantry::text::jinja
