#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_interpreter_internal.h"
#include "gantry/text/jinja_operations.h"

namespace gantry::text::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->names) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [key, old] : names) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

Value Interpreter::evaluate(const Expression& expression) {
  const DepthGuard guard(*this);
  budget_.step();
  line_ = expression.line;
  switch (expression.kind) {
    case ExpressionKind::kConstant: return expression.constant;
    case ExpressionKind::kName: {
      const Value* found = scope_->find(expression.text);
      return found != nullptr ? *found : Value::undefined(expression.text);
    }
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
    case ExpressionKind::kDict: return evaluate_collection(expression);
    case ExpressionKind::kNegate:
    case ExpressionKind::kPlus: {
      const Value value = evaluate(*expression.children[0]);
      if (expression.kind == ExpressionKind::kNegate) return negate(value);
      if (!value.is_number()) template_error("'+' is not defined for {}", value.type_name());
      return value.is(Kind::kBool) ? Value::integer(value.as_int()) : value;
    }
    case ExpressionKind::kBinary: {
      const Value left = evaluate(*expression.children[0]);
      const Value right = evaluate(*expression.children[1]);
      line_ = expression.line;
      return arithmetic(expression.op, left, right, budget_);
    }
    case ExpressionKind::kConcat: {
      std::string text;
      for (const auto& child : expression.children) text += to_text(evaluate(*child), budget_);
      budget_.bytes(text.size());
      return Value::string(std::move(text));
    }
    case ExpressionKind::kCompare: return evaluate_compare(expression);
    case ExpressionKind::kNot:
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
    case ExpressionKind::kConditional: return evaluate_logic(expression);
    case ExpressionKind::kAttribute:
    case ExpressionKind::kIndex:
    case ExpressionKind::kSlice: return evaluate_access(expression);
    case ExpressionKind::kCall: return evaluate_call(expression);
    case ExpressionKind::kFilter: return evaluate_filter(expression, nullptr);
    case ExpressionKind::kTest: {
      const Value value = evaluate(*expression.children[0]);
      Arguments arguments = evaluate_arguments(expression);
      line_ = expression.line;
      return Value::boolean(apply_test(expression.text, value, arguments));
    }
  }
  return Value();
}

Value Interpreter::evaluate_collection(const Expression& expression) {
  if (expression.kind == ExpressionKind::kDict) {
    DictObject dict;
    for (std::size_t i = 0; i + 1 < expression.children.size(); i += 2) {
      const Value key = evaluate(*expression.children[i]);
      dict.set(key, evaluate(*expression.children[i + 1]));
    }
    budget_.bytes(dict.size() * 4 * sizeof(Value));
    return Value::dict(std::move(dict));
  }
  std::vector<Value> items;
  items.reserve(expression.children.size());
  for (const auto& child : expression.children) items.push_back(evaluate(*child));
  budget_.bytes(sizeof(ListObject) + items.size() * sizeof(Value));
  return Value::list(std::move(items), expression.kind == ExpressionKind::kTuple ? Sequence::kTuple : Sequence::kList);
}

Value Interpreter::evaluate_logic(const Expression& expression) {
  Value first = evaluate(*expression.children[0]);
  switch (expression.kind) {
    case ExpressionKind::kNot: return Value::boolean(!first.truthy());
    case ExpressionKind::kAnd: return first.truthy() ? evaluate(*expression.children[1]) : first;
    case ExpressionKind::kOr: return first.truthy() ? first : evaluate(*expression.children[1]);
    default:
      if (first.truthy()) return evaluate(*expression.children[1]);
      return expression.children.size() > 2 ? evaluate(*expression.children[2]) : Value();
  }
}

Value Interpreter::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.children[0]);
  for (std::size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1]);
    line_ = expression.line;
    if (!compare(expression.operators[i], left, right, budget_)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_access(const Expression& expression) {
  const Value object = evaluate(*expression.children[0]);
  if (expression.kind == ExpressionKind::kAttribute) {
    line_ = expression.line;
    return attribute(object, expression.text);
  }
  if (expression.kind == ExpressionKind::kIndex) {
    const Value key = evaluate(*expression.children[1]);
    line_ = expression.line;
    Value found = get_item(object, key, budget_);
    if (!found.is_undefined() || !key.is_string()) return found;
    return attribute(object, key.as_string());
  }
  Value parts[3];
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& child = expression.children[i + 1];
    parts[i] = child != nullptr ? evaluate(*child) : Value::none();
  }
  line_ = expression.line;
  return slice(object, parts[0], parts[1], parts[2], budget_);
}

Arguments Interpreter::evaluate_arguments(const Expression& expression) {
  Arguments arguments;
  for (const auto& argument : expression.arguments) arguments.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : expression.keywords) {
    arguments.keyword.emplace_back(name, evaluate(*argument));
  }
  return arguments;
}

Value Interpreter::evaluate_call(const Expression& expression) {
  const Expression& callee = *expression.children[0];
  if (callee.kind == ExpressionKind::kAttribute) {
    const Value object = evaluate(*callee.children[0]);
    if (const Method method = find_method(object, callee.text)) {
      Arguments arguments = evaluate_arguments(expression);
      line_ = expression.line;
      return method(*this, object, arguments);
    }
    line_ = expression.line;
    const Value function = attribute(object, callee.text);
    if (function.is_undefined()) {
      template_error("a {} has no method '{}' that templates may call", object.type_name(), callee.text);
    }
    Arguments arguments = evaluate_arguments(expression);
    return call(function, arguments, callee.text);
  }
  const Value function = evaluate(callee);
  Arguments arguments = evaluate_arguments(expression);
  line_ = expression.line;
  return call(function, arguments, callee.text);
}

Value Interpreter::call(const Value& callee, Arguments& arguments, std::string_view name) {
  if (callee.is_undefined()) template_error("the function '{}' is not defined", name);
  if (!callee.is(Kind::kCallable)) template_error("a {} cannot be called", callee.type_name());
  const DepthGuard guard(*this);
  return callee.as_callable().call(*this, arguments);
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  check_defined(object, "attribute '" + name + "'");
  if (const Method method = find_method(object, name)) {
    return Value::callable(
        name, [object, method](Interpreter& self, Arguments& arguments) { return method(self, object, arguments); },
        object.nesting() + 1);
  }
  if (object.is(Kind::kDict)) {
    const Value* found = object.as_dict().find(Value::string(name));
    return found != nullptr ? *found : Value::undefined(name);
  }
  if (object.is(Kind::kNamespace)) {
    const Value* found = object.as_namespace().attributes.find(Value::string(name));
    return found != nullptr ? *found : Value::undefined(name);
  }
  if (object.is(Kind::kLoop)) return loop_attribute(object.as_loop(), name);
  return Value::undefined(name);
}

Value Interpreter::evaluate_filter(const Expression& expression, const Value* input) {
  const Value value =
      expression.children[0] != nullptr ? evaluate_filter_input(*expression.children[0], input) : *input;
  Arguments arguments = evaluate_arguments(expression);
  line_ = expression.line;
  return apply_filter(expression.text, value, arguments);
}

Value Interpreter::evaluate_filter_input(const Expression& expression, const Value* input) {
  if (input == nullptr) return evaluate(expression);
  const DepthGuard guard(*this);
  return evaluate_filter(expression, input);
}

Value Interpreter::apply_filter(const std::string& name, const Value& value, Arguments& arguments) {
  const Filter filter = find_filter(name);
  if (filter == nullptr) template_error("there is no filter '{}'", name);
  budget_.step();
  return filter(*this, value, arguments);
}

bool Interpreter::apply_test(const std::string& name, const Value& value, Arguments& arguments) {
  const Test test = find_test(name);
  if (test == nullptr) template_error("there is no test '{}'", name);
  budget_.step();
  return test(*this, value, arguments);
}

}  // namespace gantry::text::jinja
