#pragma once
// Values of the template language: Python's None, bool, int (64 bits), float, str, list, tuple, dict, plus what a chat
// template meets besides: undefined names, namespaces, callables and loop state. Copies are cheap; lists, dicts and
// namespaces are shared by reference as in Python.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text::jinja {

class Value;
class Interpreter;

enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kNamespace, kCallable, kLoop };

/// A lazy sequence is what filters such as `map` return: true even when empty.
enum class Sequence { kList, kTuple, kLazy };

struct ListObject;
class DictObject;
struct NamespaceObject;
struct Arguments;
struct CallableObject;
struct LoopObject;

class Value {
 public:
  Value() : data_(UndefinedTag{}) {}
  static Value undefined(std::string hint);
  static Value none() { return Value(Data(NoneTag{})); }
  static Value boolean(bool value) { return Value(Data(value)); }
  static Value integer(std::int64_t value) { return Value(Data(value)); }
  static Value real(double value) { return Value(Data(value)); }
  static Value string(std::string value) { return Value(Data(std::make_shared<const std::string>(std::move(value)))); }
  /// Throws TemplateError when the contents nest deeper than kMaxNesting.
  static Value list(std::vector<Value> items, Sequence flavour = Sequence::kList);
  static Value dict(DictObject dict);
  static Value name_space(std::shared_ptr<NamespaceObject> object) { return Value(Data(std::move(object))); }
  static Value callable(std::string name, std::function<Value(Interpreter&, Arguments&)> call, int nesting = 0);
  static Value loop(std::shared_ptr<LoopObject> object) { return Value(Data(std::move(object))); }
  static Value from_json(const base::OrderedJson& json, int depth = 0);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_string() const { return is(Kind::kString); }
  /// bool, int or float.
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  /// int or bool, as Python's isinstance(x, int).
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }

  bool as_bool() const { return std::get<bool>(data_); }
  std::int64_t as_int() const;  // of an int or a bool
  double as_double() const;     // of any number
  const std::string& as_string() const { return *std::get<StringPointer>(data_); }
  ListObject& as_list() const { return *std::get<std::shared_ptr<ListObject>>(data_); }
  const std::shared_ptr<ListObject>& list_pointer() const { return std::get<std::shared_ptr<ListObject>>(data_); }
  const DictObject& as_dict() const { return *std::get<std::shared_ptr<DictObject>>(data_); }
  NamespaceObject& as_namespace() const { return *std::get<std::shared_ptr<NamespaceObject>>(data_); }
  const CallableObject& as_callable() const { return *std::get<std::shared_ptr<const CallableObject>>(data_); }
  LoopObject& as_loop() const { return *std::get<std::shared_ptr<LoopObject>>(data_); }
  /// What an undefined value was looked up as; empty when unknown.
  std::string undefined_hint() const;
  /// The same object, not merely an equal one.
  bool same_as(const Value& other) const;

  /// Python's truth value.
  bool truthy() const;
  /// The name Python gives the type, for messages.
  const char* type_name() const;
  /// How deep lists and dicts nest in here (0 for a scalar).
  int nesting() const;

 private:
  struct NoneTag {
    bool operator==(const NoneTag&) const = default;
  };
  struct UndefinedTag {
    std::shared_ptr<const std::string> hint;
  };
  using StringPointer = std::shared_ptr<const std::string>;
  // In the order of Kind.
  using Data = std::variant<UndefinedTag, NoneTag, bool, std::int64_t, double, StringPointer,
                            std::shared_ptr<ListObject>, std::shared_ptr<DictObject>, std::shared_ptr<NamespaceObject>,
                            std::shared_ptr<const CallableObject>, std::shared_ptr<LoopObject>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  Data data_;
};

struct ListObject {
  std::vector<Value> items;
  Sequence flavour = Sequence::kList;
  int nesting = 1;       // levels of lists and dicts, which bounds recursion
  bool tracked = false;  // the interpreter empties it at the end of the render
};

/// Keeps insertion order. Keys are strings, numbers, booleans or None, equal as in Python (1, 1.0 and True are one
/// key).
class DictObject {
 public:
  const Value* find(const Value& key) const;
  void set(const Value& key, Value value);
  const std::vector<std::pair<Value, Value>>& items() const { return items_; }
  std::size_t size() const { return items_.size(); }
  void clear();
  int nesting = 1;

 private:
  std::vector<std::pair<Value, Value>> items_;
  std::unordered_map<std::string, std::size_t> index_;
};

struct NamespaceObject {
  DictObject attributes;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

struct CallableObject {
  std::string name;
  int nesting = 0;  // of a value that the function holds on to
  std::function<Value(Interpreter&, Arguments&)> call;
};

/// State behind the name `loop`.
struct LoopObject {
  std::shared_ptr<ListObject> items;
  std::int64_t index0 = 0;
  Value last_changed;  // argument of the last loop.changed()
};

/// Raised inside the interpreter without a place; the interpreter adds template name and line and throws InputError.
class TemplateError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void template_error(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError(fmt::format(format, std::forward<Args>(args)...));
}

constexpr int kMaxNesting = 120;

/// Bounds what one render may consume; every operation that makes or walks data charges it.
class Budget {
 public:
  Budget(std::int64_t steps, std::int64_t bytes) : steps_(steps), bytes_(bytes) {}
  /// `count` elementary operations; throws TemplateError when none are left.
  void step(std::size_t count = 1);
  /// Memory made by the template (also what it has already dropped).
  void bytes(std::size_t count);

 private:
  std::int64_t steps_;
  std::int64_t bytes_;
};

}  // namespace gantry::text::jinja
