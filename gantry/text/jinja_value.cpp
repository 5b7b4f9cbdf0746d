#include "gantry/text/jinja_value.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace gantry::text::jinja {
namespace {

// Python's rule: 1, 1.0 and True are the same key.
std::string key_of(const Value& key) {
  switch (key.kind()) {
    case Kind::kNone: return "n";
    case Kind::kBool:
    case Kind::kInt: return "i" + std::to_string(key.as_int());
    case Kind::kFloat: {
      const double value = key.as_double();
      if (std::floor(value) == value && std::abs(value) < 0x1p62) {
        return "i" + std::to_string(static_cast<std::int64_t>(value));
      }
      return "f" + std::to_string(std::bit_cast<std::uint64_t>(value));
    }
    case Kind::kString: return "s" + key.as_string();
    default: template_error("a {} cannot be a key of a dict; use a string or a number", key.type_name());
  }
}

int checked_nesting(int nesting) {
  if (nesting > kMaxNesting) template_error("lists and dicts nest deeper than {} levels", kMaxNesting);
  return nesting;
}

}  // namespace

const Value* DictObject::find(const Value& key) const {
  const auto found = index_.find(key_of(key));
  return found == index_.end() ? nullptr : &items_[found->second].second;
}

void DictObject::set(const Value& key, Value value) {
  nesting = std::max(nesting, 1 + std::max(key.nesting(), value.nesting()));
  const auto [found, added] = index_.emplace(key_of(key), items_.size());
  if (added) {
    items_.emplace_back(key, std::move(value));
  } else {
    items_[found->second].second = std::move(value);
  }
}

void DictObject::clear() {
  items_.clear();
  index_.clear();
}

Value Value::undefined(std::string hint) {
  return Value(Data(UndefinedTag{std::make_shared<const std::string>(std::move(hint))}));
}

Value Value::list(std::vector<Value> items, Sequence flavour) {
  auto object = std::make_shared<ListObject>();
  for (const Value& item : items) object->nesting = std::max(object->nesting, 1 + item.nesting());
  checked_nesting(object->nesting);
  object->items = std::move(items);
  object->flavour = flavour;
  return Value(Data(std::move(object)));
}

Value Value::dict(DictObject dict) {
  checked_nesting(dict.nesting);
  return Value(Data(std::make_shared<DictObject>(std::move(dict))));
}

Value Value::callable(std::string name, std::function<Value(Interpreter&, Arguments&)> call, int nesting) {
  checked_nesting(nesting);
  return Value(Data(std::make_shared<const CallableObject>(CallableObject{std::move(name), nesting, std::move(call)})));
}

Value Value::from_json(const base::OrderedJson& json, int depth) {
  checked_nesting(depth);
  using Type = base::OrderedJson::value_t;
  switch (json.type()) {
    case Type::boolean: return boolean(json.get<bool>());
    case Type::number_integer: return integer(json.get<std::int64_t>());
    case Type::number_unsigned: {
      const auto value = json.get<std::uint64_t>();
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return real(static_cast<double>(value));
      }
      return integer(static_cast<std::int64_t>(value));
    }
    case Type::number_float: return real(json.get<double>());
    case Type::string: return string(json.get_ref<const std::string&>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return list(std::move(items));
    }
    case Type::object: {
      DictObject object;
      for (const auto& [key, item] : json.items()) object.set(string(key), from_json(item, depth + 1));
      return dict(std::move(object));
    }
    default: return none();
  }
}

std::int64_t Value::as_int() const { return is(Kind::kBool) ? std::int64_t{as_bool()} : std::get<std::int64_t>(data_); }

double Value::as_double() const { return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_int()); }

std::string Value::undefined_hint() const {
  const auto& hint = std::get<UndefinedTag>(data_).hint;
  return hint ? *hint : "";
}

bool Value::same_as(const Value& other) const {
  if (kind() != other.kind()) return false;
  return std::visit(
      [&](const auto& mine) {
        using T = std::decay_t<decltype(mine)>;
        if constexpr (std::is_same_v<T, UndefinedTag>) {
          return false;
        } else if constexpr (std::is_same_v<T, StringPointer>) {
          return *mine == other.as_string();
        } else {
          return mine == std::get<T>(other.data_);
        }
      },
      data_);
}

bool Value::truthy() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return as_int() != 0;
    case Kind::kFloat: return as_double() != 0;
    case Kind::kString: return !as_string().empty();
    case Kind::kList: return as_list().flavour == Sequence::kLazy || !as_list().items.empty();
    case Kind::kDict: return as_dict().size() != 0;
    default: return true;
  }
}

const char* Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined: return "undefined";
    case Kind::kNone: return "None";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kString: return "str";
    case Kind::kList: return as_list().flavour == Sequence::kTuple ? "tuple" : "list";
    case Kind::kDict: return "dict";
    case Kind::kNamespace: return "namespace";
    case Kind::kCallable: return "function";
    default: return "loop";
  }
}

int Value::nesting() const {
  if (is(Kind::kList)) return as_list().nesting;
  if (is(Kind::kDict)) return as_dict().nesting;
  if (is(Kind::kCallable)) return as_callable().nesting;
  if (is(Kind::kLoop)) return as_loop().items->nesting + 1;
  return 0;
}

void Budget::step(std::size_t count) {
  if (count > static_cast<std::size_t>(steps_)) template_error("the template runs too long; its step limit is spent");
  steps_ -= static_cast<std::int64_t>(count);
}

void Budget::bytes(std::size_t count) {
  if (count > static_cast<std::size_t>(bytes_))
    template_error("the template makes too much text; its size limit is spent");
  bytes_ -= static_cast<std::int64_t>(count);
}

}  // namespace gantry::text::jinja
