#include <algorithm>
#include <array>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_interpreter_internal.h"
#include "gantry/text/jinja_operations.h"

namespace gantry::text::jinja {
namespace {

constexpr std::int64_t kMaxRange = 100000;

Value range(Interpreter& interpreter, Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.keyword.empty()) template_error("range takes 1 to 3 integers");
  std::int64_t parts[3] = {0, 0, 1};
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (!given[i].is_integral()) template_error("range takes integers, found {}", given[i].type_name());
    parts[given.size() == 1 ? 1 : i] = given[i].as_int();
  }
  const auto [start, stop, step] = std::tie(parts[0], parts[1], parts[2]);
  if (step == 0) template_error("the step of range is 0");
  const auto distance = static_cast<double>(stop) - static_cast<double>(start);
  if (distance / static_cast<double>(step) > static_cast<double>(kMaxRange)) {
    template_error("range makes more than {} numbers", kMaxRange);
  }
  std::vector<Value> items;
  for (std::int64_t at = start; step > 0 ? at < stop : at > stop;) {
    items.push_back(Value::integer(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  interpreter.budget().bytes(items.size() * sizeof(Value));
  return Value::list(std::move(items));
}

/// dict(mapping_or_pairs, name=value ...), shared with namespace().
DictObject collect(Interpreter& interpreter, Arguments& arguments) {
  DictObject dict;
  if (arguments.positional.size() > 1) template_error("dict takes one positional argument at most");
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.as_dict().items()) dict.set(key, value);
    } else {
      for (const Value& pair : iterate(source, interpreter.budget())) {
        const auto parts = iterate(pair, interpreter.budget());
        if (parts.size() != 2) template_error("dict needs pairs, found {} values", parts.size());
        dict.set(parts[0], parts[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.keyword) dict.set(Value::string(name), std::move(value));
  interpreter.budget().bytes(sizeof(NamespaceObject) + dict.size() * 4 * sizeof(Value));
  return dict;
}

Value make_dict(Interpreter& interpreter, Arguments& arguments) { return Value::dict(collect(interpreter, arguments)); }

Value make_namespace(Interpreter& interpreter, Arguments& arguments) {
  auto object = std::make_shared<NamespaceObject>();
  object->attributes = collect(interpreter, arguments);
  interpreter.track(object);
  return Value::name_space(std::move(object));
}

Value raise_exception(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"});
  template_error("the template refuses this conversation: {}", to_text(bound.required(0), interpreter.budget()));
}

Value strftime_now(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"});
  const std::string& format = bound.text(0);
  // Plain conversions only: glibc's widths ("%9999d") would let a template choose the length.
  static constexpr std::string_view kKnown = "aAbBcdDeFHIjklmMnpPrRsStTuUVwWxXyYzZ%CgGh";
  for (std::size_t at = format.find('%'); at != std::string::npos; at = format.find('%', at + 1)) {
    std::size_t letter = at + 1;
    if (letter < format.size() && format[letter] == '-') ++letter;
    if (letter >= format.size() || kKnown.find(format[letter]) == std::string_view::npos) {
      template_error("strftime_now: unknown conversion in '{}'", format);
    }
    at = letter;
  }
  if (format.size() > 1000) template_error("strftime_now: the format is longer than 1000 characters");
  std::vector<char> buffer(64 + format.size() * 32);
  const std::tm now = interpreter.now();
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &now);
  return Value::string(std::string(buffer.data(), size));
}

/// joiner(sep): "" at the first call, sep afterwards.
Value joiner(Interpreter&, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  const auto used = std::make_shared<bool>(false);
  return Value::callable("joiner", [used, separator = bound.text(0, ", ")](Interpreter& self, Arguments&) {
    self.budget().bytes(separator.size());
    return Value::string(std::exchange(*used, true) ? separator : "");
  });
}

}  // namespace

void define_globals(Scope& scope) {
  static constexpr std::array<std::pair<const char*, Value (*)(Interpreter&, Arguments&)>, 6> kGlobals = {
      {{"range", range},
       {"dict", make_dict},
       {"namespace", make_namespace},
       {"raise_exception", raise_exception},
       {"strftime_now", strftime_now},
       {"joiner", joiner}}};
  for (const auto& [name, function] : kGlobals) scope.set(name, Value::callable(name, function));
}

Bound::Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> names)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    template_error("{} takes {} arguments at most, not {}", function, names.size(), arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) template_error("{} has no argument '{}'", function, name);
    const Value*& slot = values_[static_cast<std::size_t>(found - names_.begin())];
    if (slot != nullptr) template_error("{} got '{}' twice", function, name);
    slot = &value;
  }
}

const Value& Bound::required(std::size_t index) const {
  if (values_[index] == nullptr) template_error("{} needs the argument '{}'", function_, names_[index]);
  return *values_[index];
}

bool Bound::flag(std::size_t index, bool fallback) const {
  return values_[index] == nullptr ? fallback : values_[index]->truthy();
}

std::int64_t Bound::integer(std::size_t index, std::int64_t fallback) const {
  if (values_[index] == nullptr) return fallback;
  if (!values_[index]->is_integral()) {
    template_error("{}: '{}' must be an int, found {}", function_, names_[index], values_[index]->type_name());
  }
  return values_[index]->as_int();
}

const std::string& Bound::text(std::size_t index) const {
  const Value& value = required(index);
  if (!value.is_string()) {
    template_error("{}: '{}' must be a str, found {}", function_, names_[index], value.type_name());
  }
  return value.as_string();
}

std::string Bound::text(std::size_t index, std::string_view fallback) const {
  return values_[index] == nullptr ? std::string(fallback) : text(index);
}

const std::string* Bound::optional_text(std::size_t index) const {
  if (values_[index] == nullptr || values_[index]->is(Kind::kNone)) return nullptr;
  return &text(index);
}

Value loop_attribute(const LoopObject& loop, std::string_view name) {
  const auto& items = loop.items->items;
  const auto count = static_cast<std::int64_t>(items.size());
  const std::int64_t at = loop.index0;
  if (name == "index") return Value::integer(at + 1);
  if (name == "index0") return Value::integer(at);
  if (name == "revindex") return Value::integer(count - at);
  if (name == "revindex0") return Value::integer(count - at - 1);
  if (name == "first") return Value::boolean(at == 0);
  if (name == "last") return Value::boolean(at == count - 1);
  if (name == "length") return Value::integer(count);
  if (name == "depth") return Value::integer(1);
  if (name == "depth0") return Value::integer(0);
  if (name == "previtem" && at > 0) return items[static_cast<std::size_t>(at - 1)];
  if (name == "nextitem" && at + 1 < count) return items[static_cast<std::size_t>(at + 1)];
  return Value::undefined("loop." + std::string(name));
}

}  // namespace gantry::text::jinja
