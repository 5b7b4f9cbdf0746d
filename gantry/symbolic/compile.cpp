#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "gantry/symbolic/node.h"
#include "gantry/symbolic/program.h"

namespace gantry::symbolic {

constexpr int kImmediate = Instruction::kImmediate;

// Emits instructions of numbered values (one result a value), then lets values share registers.
class Compiler {
 public:
  Program compile(std::span<const Expr> outputs) {
    std::set<const Node*> seen;
    std::set<std::string> names;
    for (const Expr& output : outputs) collect(output, seen, names);
    program_.symbols_.assign(names.begin(), names.end());
    next_ = static_cast<int>(program_.symbols_.size());
    for (const Expr& output : outputs) program_.outputs_.push_back(value(output));
    assign_registers();
    return std::move(program_);
  }

 private:
  // An operand: the number of a value, or a constant.
  struct Operand {
    int value = kImmediate;
    double constant = 0;
  };

  static void collect(const Expr& expr, std::set<const Node*>& seen, std::set<std::string>& names) {
    const Node& node = expr.node();
    if (!seen.insert(&node).second) return;
    if (node.op == Op::kSymbol) names.insert(node.name);
    for (const Expr& operand : node.operands) collect(operand, seen, names);
    for (const Term& term : node.terms) {
      for (const Factor& factor : term.factors) collect(factor.base, seen, names);
    }
  }

  int emit(Op op, int left, int right, double constant = 0) {
    const auto [found, added] = numbers_.try_emplace({op, left, right, constant}, next_);
    if (added) {
      program_.instructions_.push_back({op, next_, left, right, constant});
      ++next_;
    }
    return found->second;
  }

  Operand emit_operand(Op op, const Operand& a, const Operand& b) {
    if (a.value == kImmediate) return {emit(op, b.value, kImmediate, a.constant)};
    return {emit(op, a.value, b.value, b.constant)};
  }

  int value(const Expr& expr) {
    const Operand result = operand(expr);
    return result.value == kImmediate ? emit(Op::kConstant, kImmediate, kImmediate, result.constant) : result.value;
  }

  Operand operand(const Expr& expr) {
    if (const auto constant = expr.constant()) return {kImmediate, *constant};
    const auto known = values_.find(&expr.node());
    if (known != values_.end()) return {known->second};
    const int result = make(expr.node());
    values_.emplace(&expr.node(), result);
    return {result};
  }

  int make(const Node& node) {
    switch (node.op) {
      case Op::kSymbol: {
        const auto place = std::ranges::lower_bound(program_.symbols_, node.name);
        return static_cast<int>(place - program_.symbols_.begin());
      }
      case Op::kFloor:
      case Op::kCeil: return emit(node.op, value(node.operands[0]), kImmediate);
      case Op::kMax: {
        Operand result = operand(node.operands[0]);
        for (std::size_t i = 1; i < node.operands.size(); ++i) {
          result = emit_operand(Op::kMax, result, operand(node.operands[i]));
        }
        return result.value;
      }
      default: return sum(node.terms);
    }
  }

  int sum(const std::vector<Term>& terms) {
    Operand result = product(terms[0]);
    for (std::size_t i = 1; i < terms.size(); ++i) result = emit_operand(Op::kAdd, result, product(terms[i]));
    return result.value;
  }

  // Factors above over factors below, the coefficient last: terms that differ by it share the rest.
  Operand product(const Term& term) {
    Operand above{kImmediate, 1};
    Operand below{kImmediate, 1};
    for (const Factor& factor : term.factors) {
      Operand& side = factor.power > 0 ? above : below;
      const int base = value(factor.base);
      for (int n = std::abs(factor.power); n > 0; --n) side = times(side, {base});
    }
    above = times(above, {kImmediate, term.coefficient.numerator});
    below = times(below, {kImmediate, term.coefficient.denominator});
    if (below.value == kImmediate && below.constant == 1) return above;
    if (above.value == kImmediate && below.value == kImmediate) return {kImmediate, above.constant / below.constant};
    const double constant = above.value == kImmediate ? above.constant : below.constant;
    return {emit(Op::kDivide, above.value, below.value, constant)};
  }

  Operand times(const Operand& a, const Operand& b) {
    if (a.value == kImmediate && b.value == kImmediate) return {kImmediate, a.constant * b.constant};
    if (a.value == kImmediate && a.constant == 1) return b;
    if (b.value == kImmediate && b.constant == 1) return a;
    return emit_operand(Op::kMultiply, a, b);
  }

  void assign_registers() {
    const auto symbols = static_cast<int>(program_.symbols_.size());
    std::vector<std::size_t> last_use(static_cast<std::size_t>(next_), 0);
    for (std::size_t i = 0; i < program_.instructions_.size(); ++i) {
      for (const int used : {program_.instructions_[i].left, program_.instructions_[i].right}) {
        if (used >= symbols) last_use[static_cast<std::size_t>(used)] = i;
      }
    }
    for (const int output : program_.outputs_) last_use[static_cast<std::size_t>(output)] = SIZE_MAX;
    std::vector<int> home(static_cast<std::size_t>(next_), 0);
    for (int i = 0; i < symbols; ++i) home[static_cast<std::size_t>(i)] = i;
    std::vector<int> free;
    program_.registers_ = symbols;
    for (std::size_t i = 0; i < program_.instructions_.size(); ++i) {
      Instruction& instruction = program_.instructions_[i];
      const std::set<int> used = {instruction.left, instruction.right};
      // The result's register is taken before those of the operands are free: evaluation may assume they differ.
      int& result = home[static_cast<std::size_t>(instruction.result)];
      if (free.empty()) free.push_back(program_.registers_++);
      result = free.back();
      free.pop_back();
      for (const int value : used) {
        if (value >= symbols && last_use[static_cast<std::size_t>(value)] == i) {
          free.push_back(home[static_cast<std::size_t>(value)]);
        }
      }
      instruction.result = result;
      for (int* side : {&instruction.left, &instruction.right}) {
        if (*side != kImmediate) *side = home[static_cast<std::size_t>(*side)];
      }
    }
    for (int& output : program_.outputs_) output = home[static_cast<std::size_t>(output)];
  }

  Program program_;
  int next_ = 0;
  std::map<std::tuple<Op, int, int, double>, int> numbers_;
  std::unordered_map<const Node*, int> values_;
};

Program compile(std::span<const Expr> outputs) { return Compiler().compile(outputs); }

}  // namespace gantry::symbolic
