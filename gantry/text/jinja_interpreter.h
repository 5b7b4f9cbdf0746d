#pragma once
// Runs a parsed template. One interpreter renders once; it is not shared between threads.
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gantry/text/jinja_ast.h"
#include "gantry/text/jinja_value.h"

namespace gantry::text::jinja {

/// Names visible in one block; lookup goes on in the parent.
struct Scope {
  std::vector<std::pair<std::string, Value>> names;
  std::shared_ptr<Scope> parent;

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

class Interpreter {
 public:
  Interpreter(Budget budget, const std::tm& now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// Renders the template with `variables` visible to it.
  std::string run(const Block& block, const DictObject& variables);

  Budget& budget() { return budget_; }
  const std::tm& now() const { return now_; }
  /// Line of the statement or expression at work, for messages.
  int line() const { return line_; }
  /// Byte ranges of the output that `generation` blocks made.
  const std::vector<std::pair<std::size_t, std::size_t>>& generation_ranges() const { return generation_ranges_; }

  Value evaluate(const Expression& expression);
  Value call(const Value& callee, Arguments& arguments, std::string_view name);
  Value attribute(const Value& object, const std::string& name);
  Value apply_filter(const std::string& name, const Value& value, Arguments& arguments);
  bool apply_test(const std::string& name, const Value& value, Arguments& arguments);

  /// Values that can come to hold themselves are emptied when the render ends.
  void track(std::shared_ptr<NamespaceObject> object) { namespaces_.push_back(std::move(object)); }
  void track(std::shared_ptr<ListObject> object) { lists_.push_back(std::move(object)); }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class DepthGuard;
  class ScopeGuard;

  Value evaluate_collection(const Expression& expression);
  Value evaluate_logic(const Expression& expression);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_access(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value evaluate_filter(const Expression& expression, const Value* input);
  Value evaluate_filter_input(const Expression& expression, const Value* input);
  Arguments evaluate_arguments(const Expression& expression);

  Flow execute(const Block& block);
  Flow execute(const Statement& statement);
  Flow execute_if(const Statement& statement);
  Flow execute_for(const Statement& statement);
  std::shared_ptr<ListObject> loop_items(const Statement& statement);
  void execute_call_block(const Statement& statement);
  void execute_with(const Statement& statement);
  void execute_generation(const Statement& statement);
  void assign(const Expression& target, Value value);
  void emit(std::string_view text);
  /// Output of a block as a string, in a scope of its own.
  std::string capture(const Block& block);
  Value make_macro(const Statement& statement);
  Value call_macro(const Statement& statement, const std::shared_ptr<Scope>& closure, Arguments& arguments);
  void bind_parameters(const Statement& statement, Arguments& arguments);

  Budget budget_;
  std::tm now_;
  int line_ = 1;
  int depth_ = 0;
  int captures_ = 0;
  std::string* output_ = nullptr;
  std::shared_ptr<Scope> scope_;
  std::vector<std::pair<std::size_t, std::size_t>> generation_ranges_;
  std::vector<std::shared_ptr<Scope>> closures_;
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;
  std::vector<std::shared_ptr<ListObject>> lists_;
};

}  // namespace gantry::text::jinja
