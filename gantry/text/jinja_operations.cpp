#include "gantry/text/jinja_operations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

constexpr const char* kOperatorNames[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void unsupported(Operator op, const Value& left, const Value& right) {
  template_error("'{}' is not defined between {} and {}", kOperatorNames[static_cast<int>(op)], left.type_name(),
                 right.type_name());
}

[[noreturn]] void overflow() { template_error("an integer leaves the range of 64 bits"); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) template_error("division by zero");
  if (a == std::numeric_limits<std::int64_t>::min() && b == -1) overflow();
  return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
}

Value integer_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  std::int64_t result = 1;
  while (exponent != 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent != 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value::integer(result);
}

Value integer_arithmetic(Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case Operator::kDivide:
      if (b == 0) template_error("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide: return Value::integer(floor_divide(a, b));
    case Operator::kModulo:
      if (b == -1) return Value::integer(0);
      return Value::integer(a - floor_divide(a, b) * b);
    default: return integer_power(a, b);
  }
}

Value real_arithmetic(Operator op, double a, double b) {
  if (b == 0 && (op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo)) {
    template_error("division by zero");
  }
  switch (op) {
    case Operator::kAdd: return Value::real(a + b);
    case Operator::kSubtract: return Value::real(a - b);
    case Operator::kMultiply: return Value::real(a * b);
    case Operator::kDivide: return Value::real(a / b);
    case Operator::kFloorDivide: return Value::real(std::floor(a / b));
    case Operator::kModulo: {
      const double rest = std::fmod(a, b);
      return Value::real(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
    default: return Value::real(std::pow(a, b));
  }
}

Value repeat(const Value& value, std::int64_t times, Budget& budget) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const std::size_t size = value.is_string() ? value.as_string().size() : value.as_list().items.size() * sizeof(Value);
  if (size != 0 && count > std::numeric_limits<std::size_t>::max() / 2 / size)
    template_error("the result is too large");
  budget.bytes(size * count);
  if (value.is_string()) {
    std::string text;
    if (size != 0) {
      for (std::size_t i = 0; i < count; ++i) text += value.as_string();
    }
    return Value::string(std::move(text));
  }
  std::vector<Value> items;
  const auto& source = value.as_list().items;
  for (std::size_t i = 0; i < count && !source.empty(); ++i) items.insert(items.end(), source.begin(), source.end());
  return Value::list(std::move(items), value.as_list().flavour);
}

bool repeatable(const Value& value) {
  return value.is_string() || (value.is(Kind::kList) && value.as_list().flavour != Sequence::kLazy);
}

int compare_sequences(const std::vector<Value>& a, const std::vector<Value>& b, Budget& budget) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (equal(a[i], b[i], budget)) continue;
    return less_than(a[i], b[i], budget) ? -1 : 1;
  }
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

bool equal_lists(const ListObject& a, const ListObject& b, Budget& budget) {
  if (a.flavour != b.flavour || a.items.size() != b.items.size()) return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(a.items[i], b.items[i], budget)) return false;
  }
  return true;
}

bool equal_dicts(const DictObject& a, const DictObject& b, Budget& budget) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, item] : a.items()) {
    const Value* other = b.find(key);
    if (other == nullptr || !equal(item, *other, budget)) return false;
  }
  return true;
}

// The stack is finite even where appended lists nest deeper than construction allows.
class DepthGuard {
 public:
  DepthGuard() {
    if (++depth > 4 * kMaxNesting) {
      --depth;
      template_error("values nest too deeply to be compared");
    }
  }
  ~DepthGuard() { --depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  static thread_local int depth;
};
thread_local int DepthGuard::depth = 0;

/// Index of an element, counted from the end when negative; -1 when outside.
std::int64_t resolve_index(std::int64_t index, std::size_t size) {
  const auto count = static_cast<std::int64_t>(size);
  if (index < 0) index += count;
  return index >= 0 && index < count ? index : -1;
}

Value string_item(const std::string& text, std::int64_t index, Budget& budget) {
  budget.step(1 + text.size() / 16);
  const auto offsets = code_offsets(text);
  const std::int64_t at = resolve_index(index, offsets.size() - 1);
  if (at < 0) return Value();
  const auto begin = offsets[static_cast<std::size_t>(at)];
  return Value::string(text.substr(begin, offsets[static_cast<std::size_t>(at) + 1] - begin));
}

/// Python's slice.indices(): positions taken, in order.
std::vector<std::size_t> slice_positions(std::size_t size, const Value& start, const Value& stop, const Value& step) {
  const auto part = [](const Value& value, std::int64_t fallback) {
    if (value.is(Kind::kNone)) return fallback;
    if (!value.is_integral()) template_error("a slice needs integers, found {}", value.type_name());
    return value.as_int();
  };
  const std::int64_t count = static_cast<std::int64_t>(size);
  const std::int64_t stride = std::clamp<std::int64_t>(part(step, 1), -count - 1, count + 1);
  if (part(step, 1) == 0) template_error("the step of a slice is 0");
  const std::int64_t low = stride < 0 ? -1 : 0;
  const std::int64_t high = stride < 0 ? count - 1 : count;
  const auto clip = [&](const Value& value, std::int64_t fallback) {
    if (value.is(Kind::kNone)) return fallback;
    std::int64_t at = part(value, 0);
    if (at < 0) at = std::max(at, -count - 1) + count;
    return std::clamp(at, low, high);
  };
  const std::int64_t first = clip(start, stride < 0 ? high : low);
  const std::int64_t last = clip(stop, stride < 0 ? low : high);
  std::vector<std::size_t> positions;
  for (std::int64_t at = first; stride < 0 ? at > last : at < last; at += stride) {
    positions.push_back(static_cast<std::size_t>(at));
  }
  return positions;
}

}  // namespace

void check_defined(const Value& value, std::string_view use) {
  if (!value.is_undefined()) return;
  const std::string hint = value.undefined_hint();
  template_error("{} is undefined, so it has no {}", hint.empty() ? "a value" : "'" + hint + "'", use);
}

Value arithmetic(Operator op, const Value& left, const Value& right, Budget& budget) {
  if (left.is_number() && right.is_number()) {
    const bool real = left.is(Kind::kFloat) || right.is(Kind::kFloat);
    return real ? real_arithmetic(op, left.as_double(), right.as_double())
                : integer_arithmetic(op, left.as_int(), right.as_int());
  }
  if (left.is_undefined() || right.is_undefined()) {
    const Value& missing = left.is_undefined() ? left : right;
    template_error("'{}' is undefined and cannot be an operand of '{}'", missing.undefined_hint(),
                   kOperatorNames[static_cast<int>(op)]);
  }
  if (op == Operator::kAdd && left.is_string() && right.is_string()) {
    budget.bytes(left.as_string().size() + right.as_string().size());
    return Value::string(left.as_string() + right.as_string());
  }
  if (op == Operator::kAdd && left.is(Kind::kList) && right.is(Kind::kList) &&
      left.as_list().flavour == right.as_list().flavour && repeatable(left)) {
    std::vector<Value> items = left.as_list().items;
    items.insert(items.end(), right.as_list().items.begin(), right.as_list().items.end());
    budget.bytes(items.size() * sizeof(Value));
    return Value::list(std::move(items), left.as_list().flavour);
  }
  if (op == Operator::kMultiply && repeatable(left) && right.is_integral()) return repeat(left, right.as_int(), budget);
  if (op == Operator::kMultiply && left.is_integral() && repeatable(right)) return repeat(right, left.as_int(), budget);
  unsupported(op, left, right);
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value::real(-value.as_double());
  if (!value.is_integral()) template_error("'-' is not defined for {}", value.type_name());
  return integer_arithmetic(Operator::kSubtract, 0, value.as_int());
}

bool equal(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.as_int() == right.as_int();
    return left.as_double() == right.as_double();
  }
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kString:
      budget.step(std::min(left.as_string().size(), right.as_string().size()) / 64);
      return left.as_string() == right.as_string();
    case Kind::kList: {
      const DepthGuard guard;
      return left.same_as(right) || equal_lists(left.as_list(), right.as_list(), budget);
    }
    case Kind::kDict: {
      const DepthGuard guard;
      return left.same_as(right) || equal_dicts(left.as_dict(), right.as_dict(), budget);
    }
    default: return left.same_as(right);
  }
}

bool less_than(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.as_int() < right.as_int();
    return left.as_double() < right.as_double();
  }
  if (left.is_string() && right.is_string()) {
    budget.step(std::min(left.as_string().size(), right.as_string().size()) / 64);
    return left.as_string() < right.as_string();
  }
  if (left.is(Kind::kList) && right.is(Kind::kList) && left.as_list().flavour == right.as_list().flavour) {
    const DepthGuard guard;
    return compare_sequences(left.as_list().items, right.as_list().items, budget) < 0;
  }
  template_error("{} and {} cannot be ordered", left.type_name(), right.type_name());
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.kind()) {
    case Kind::kUndefined: return false;
    case Kind::kString: {
      if (!item.is_string()) template_error("'in' needs a str left of a str, found {}", item.type_name());
      const std::string& text = container.as_string();
      const std::string& part = item.as_string();
      budget.step(1 + (text.size() + part.size()) / 16);
      return memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
    }
    case Kind::kList: {
      const auto list = container.list_pointer();
      return std::any_of(list->items.begin(), list->items.end(),
                         [&](const Value& other) { return equal(other, item, budget); });
    }
    case Kind::kDict:
      if (item.is_string()) budget.step(item.as_string().size() / 16);
      return !item.is_undefined() && container.as_dict().find(item) != nullptr;
    default: template_error("'in' is not defined for {}", container.type_name());
  }
}

bool compare(Operator op, const Value& left, const Value& right, Budget& budget) {
  if (op != Operator::kEqual && op != Operator::kNotEqual && op != Operator::kIn && op != Operator::kNotIn) {
    check_defined(left, "order");
    check_defined(right, "order");
  }
  const auto unordered = [](const Value& value) { return value.is(Kind::kFloat) && std::isnan(value.as_double()); };
  switch (op) {
    case Operator::kEqual: return equal(left, right, budget);
    case Operator::kNotEqual: return !equal(left, right, budget);
    case Operator::kLess: return less_than(left, right, budget);
    case Operator::kGreater: return less_than(right, left, budget);
    case Operator::kLessEqual: return !less_than(right, left, budget) && !unordered(left) && !unordered(right);
    case Operator::kGreaterEqual: return !less_than(left, right, budget) && !unordered(left) && !unordered(right);
    case Operator::kIn: return contains(right, left, budget);
    default: return !contains(right, left, budget);
  }
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined: return items;
    case Kind::kList: items = value.as_list().items; break;
    case Kind::kDict:
      for (const auto& [key, item] : value.as_dict().items()) items.push_back(key);
      break;
    case Kind::kString: {
      const std::string& text = value.as_string();
      budget.bytes(text.size() * (sizeof(Value) + sizeof(std::string)));
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        next_code(text, at);
        items.push_back(Value::string(text.substr(begin, at - begin)));
      }
      return items;
    }
    default: template_error("a {} is not iterable", value.type_name());
  }
  budget.bytes(items.size() * sizeof(Value));
  return items;
}

std::shared_ptr<ListObject> as_sequence(const Value& value, Budget& budget) {
  if (value.is(Kind::kList)) return value.list_pointer();
  return Value::list(iterate(value, budget)).list_pointer();
}

std::size_t length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return code_count(value.as_string());
    case Kind::kList: return value.as_list().items.size();
    case Kind::kDict: return value.as_dict().size();
    default: template_error("a {} has no length", value.type_name());
  }
}

Value get_item(const Value& value, const Value& key, Budget& budget) {
  budget.step();
  check_defined(value, key.is_string() ? "'" + key.as_string() + "'" : "items");
  if (value.is(Kind::kDict)) {
    if (key.is_undefined() || key.is(Kind::kList) || key.is(Kind::kDict)) return Value();
    if (key.is_string()) budget.step(key.as_string().size() / 16);
    const Value* found = value.as_dict().find(key);
    if (found != nullptr) return *found;
    return key.is_string() ? Value::undefined(key.as_string()) : Value();
  }
  if (value.is(Kind::kList) && key.is_integral()) {
    const auto& items = value.as_list().items;
    const std::int64_t at = resolve_index(key.as_int(), items.size());
    return at < 0 ? Value::undefined(fmt::format("item {}", key.as_int())) : items[static_cast<std::size_t>(at)];
  }
  if (value.is_string() && key.is_integral()) return string_item(value.as_string(), key.as_int(), budget);
  return key.is_string() ? Value::undefined(key.as_string()) : Value();
}

Value slice(const Value& value, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  check_defined(value, "slices");
  if (value.is_string()) {
    const std::string& text = value.as_string();
    budget.bytes(text.size());
    const auto offsets = code_offsets(text);
    std::string out;
    for (const std::size_t at : slice_positions(offsets.size() - 1, start, stop, step)) {
      out.append(text, offsets[at], offsets[at + 1] - offsets[at]);
    }
    return Value::string(std::move(out));
  }
  if (!value.is(Kind::kList)) template_error("a {} cannot be sliced", value.type_name());
  const auto& items = value.as_list().items;
  budget.bytes(items.size() * sizeof(Value));
  std::vector<Value> out;
  for (const std::size_t at : slice_positions(items.size(), start, stop, step)) out.push_back(items[at]);
  return Value::list(std::move(out), value.as_list().flavour);
}

}  // namespace gantry::text::jinja
