#include <algorithm>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_format.h"
#include "gantry/text/jinja_interpreter_internal.h"
#include "gantry/text/jinja_operations.h"

namespace gantry::text::jinja {

Interpreter::Interpreter(Budget budget, const std::tm& now) : budget_(budget), now_(now) {}

Interpreter::~Interpreter() {
  for (const auto& list : lists_) list->items.clear();
  for (const auto& object : namespaces_) object->attributes.clear();
  for (const auto& scope : closures_) scope->names.clear();
}

std::string Interpreter::run(const Block& block, const DictObject& variables) {
  scope_ = std::make_shared<Scope>();
  define_globals(*scope_);
  const ScopeGuard guard(*this, scope_);
  for (const auto& [name, value] : variables.items()) scope_->set(name.as_string(), value);
  std::string text;
  output_ = &text;
  execute(block);
  return text;
}

Interpreter::Flow Interpreter::execute(const Block& block) {
  const DepthGuard guard(*this);
  for (const auto& statement : block) {
    const Flow flow = execute(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  budget_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText: emit(statement.text); break;
    case StatementKind::kPrint: emit(to_text(evaluate(*statement.value), budget_)); break;
    case StatementKind::kIf: return execute_if(statement);
    case StatementKind::kFor: return execute_for(statement);
    case StatementKind::kSet: assign(*statement.target, evaluate(*statement.value)); break;
    case StatementKind::kSetBlock: {
      Value text = Value::string(capture(statement.body));
      assign(*statement.target, statement.value != nullptr ? evaluate_filter(*statement.value, &text) : text);
      break;
    }
    case StatementKind::kMacro: scope_->set(statement.text, make_macro(statement)); break;
    case StatementKind::kCallBlock: execute_call_block(statement); break;
    case StatementKind::kFilterBlock: {
      const Value text = Value::string(capture(statement.body));
      emit(to_text(evaluate_filter(*statement.value, &text), budget_));
      break;
    }
    case StatementKind::kWith: execute_with(statement); break;
    case StatementKind::kGeneration: execute_generation(statement); break;
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_if(const Statement& statement) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition == nullptr || evaluate(*branch.condition).truthy()) return execute(branch.body);
  }
  return Flow::kNext;
}

std::shared_ptr<ListObject> Interpreter::loop_items(const Statement& statement) {
  const Value iterable = evaluate(*statement.value);
  line_ = statement.line;
  auto items = as_sequence(iterable, budget_);
  if (statement.condition == nullptr) return items;
  std::vector<Value> kept;
  for (std::size_t i = 0; i < items->items.size(); ++i) {
    const Value item = items->items[i];
    const ScopeGuard guard(*this, scope_);
    assign(*statement.target, item);
    if (evaluate(*statement.condition).truthy()) kept.push_back(item);
  }
  budget_.bytes(kept.size() * sizeof(Value));
  return Value::list(std::move(kept)).list_pointer();
}

Interpreter::Flow Interpreter::execute_for(const Statement& statement) {
  const auto items = loop_items(statement);
  if (items->items.empty()) {
    const ScopeGuard guard(*this, scope_);
    return execute(statement.otherwise);
  }
  const auto loop = std::make_shared<LoopObject>();
  loop->items = items;
  Flow flow = Flow::kNext;
  for (std::size_t i = 0; i < items->items.size() && flow != Flow::kBreak; ++i) {
    budget_.step();
    loop->index0 = static_cast<std::int64_t>(i);
    const ScopeGuard guard(*this, scope_);
    scope_->set("loop", Value::loop(loop));
    line_ = statement.line;
    assign(*statement.target, Value(items->items[i]));
    flow = execute(statement.body);
  }
  return Flow::kNext;
}

void Interpreter::assign(const Expression& target, Value value) {
  if (target.kind == ExpressionKind::kName) {
    scope_->set(target.text, std::move(value));
    return;
  }
  if (target.kind == ExpressionKind::kAttribute) {
    const Value object = evaluate(*target.children[0]);
    if (!object.is(Kind::kNamespace)) {
      template_error("'{}.{}' cannot be set: only attributes of a namespace can, and this is a {}",
                     target.children[0]->text, target.text, object.type_name());
    }
    object.as_namespace().attributes.set(Value::string(target.text), std::move(value));
    return;
  }
  const auto items = iterate(value, budget_);
  if (items.size() != target.children.size()) {
    template_error("{} values cannot be unpacked into {} names", items.size(), target.children.size());
  }
  for (std::size_t i = 0; i < items.size(); ++i) assign(*target.children[i], items[i]);
}

void Interpreter::emit(std::string_view text) {
  budget_.bytes(text.size());
  output_->append(text);
}

std::string Interpreter::capture(const Block& block) {
  struct Redirect {
    Interpreter& self;
    std::string text;
    std::string* outer;
    explicit Redirect(Interpreter& interpreter) : self(interpreter), outer(interpreter.output_) {
      self.output_ = &text;
      ++self.captures_;
    }
    ~Redirect() {
      self.output_ = outer;
      --self.captures_;
    }
  } redirect(*this);
  const ScopeGuard guard(*this, scope_);
  execute(block);
  return std::move(redirect.text);
}

void Interpreter::execute_with(const Statement& statement) {
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.assignments) values.push_back(evaluate(*expression));
  const ScopeGuard guard(*this, scope_);
  for (std::size_t i = 0; i < values.size(); ++i) assign(*statement.assignments[i].first, values[i]);
  execute(statement.body);
}

void Interpreter::execute_generation(const Statement& statement) {
  const std::size_t begin = output_->size();
  {
    const ScopeGuard guard(*this, scope_);
    execute(statement.body);
  }
  if (captures_ == 0) generation_ranges_.emplace_back(begin, output_->size());
}

Value Interpreter::make_macro(const Statement& statement) {
  budget_.bytes(sizeof(Scope) + sizeof(CallableObject) + 64);
  closures_.push_back(scope_);
  return Value::callable(statement.text.empty() ? "caller" : statement.text,
                         [&statement, closure = scope_](Interpreter& self, Arguments& arguments) {
                           return self.call_macro(statement, closure, arguments);
                         });
}

Value Interpreter::call_macro(const Statement& statement, const std::shared_ptr<Scope>& closure, Arguments& arguments) {
  const ScopeGuard guard(*this, closure);
  bind_parameters(statement, arguments);
  return Value::string(capture(statement.body));
}

void Interpreter::bind_parameters(const Statement& statement, Arguments& arguments) {
  const auto& parameters = statement.parameters;
  std::vector<bool> given(parameters.size(), false);
  std::vector<Value> extra;
  DictObject extra_named;
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i >= parameters.size()) {
      extra.push_back(std::move(arguments.positional[i]));
      continue;
    }
    scope_->set(parameters[i].name, std::move(arguments.positional[i]));
    given[i] = true;
  }
  for (auto& [name, value] : arguments.keyword) {
    const auto found = std::find_if(parameters.begin(), parameters.end(),
                                    [&, &key = name](const Parameter& parameter) { return parameter.name == key; });
    if (found == parameters.end()) {
      if (name == "caller" && statement.takes_caller) {
        scope_->set(name, std::move(value));
      } else {
        extra_named.set(Value::string(name), std::move(value));
      }
      continue;
    }
    const auto index = static_cast<std::size_t>(found - parameters.begin());
    if (given[index]) template_error("macro '{}' got '{}' twice", statement.text, name);
    scope_->set(name, std::move(value));
    given[index] = true;
  }
  if (!extra.empty() && !statement.takes_varargs) {
    template_error("macro '{}' takes {} arguments, not {}", statement.text, parameters.size(),
                   arguments.positional.size());
  }
  if (extra_named.size() != 0 && !statement.takes_kwargs) {
    template_error("macro '{}' has no parameter '{}'", statement.text, extra_named.items()[0].first.as_string());
  }
  if (statement.takes_varargs) scope_->set("varargs", Value::list(std::move(extra), Sequence::kTuple));
  if (statement.takes_kwargs) scope_->set("kwargs", Value::dict(std::move(extra_named)));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (given[i]) continue;
    const auto& fallback = parameters[i].fallback;
    scope_->set(parameters[i].name, fallback != nullptr ? evaluate(*fallback) : Value::undefined(parameters[i].name));
  }
}

void Interpreter::execute_call_block(const Statement& statement) {
  const Expression& expression = *statement.value;
  const Value function = evaluate(*expression.children[0]);
  Arguments arguments = evaluate_arguments(expression);
  arguments.keyword.emplace_back("caller", make_macro(statement));
  line_ = statement.line;
  emit(to_text(call(function, arguments, expression.children[0]->text), budget_));
}

}  // namespace gantry::text::jinja
