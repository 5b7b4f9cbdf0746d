#include <fmt/format.h>

#include <cmath>
#include <cstdint>

#include "gantry/symbolic/node.h"

namespace gantry::symbolic {
namespace {

std::string number_text(double value) {
  return value == std::floor(value) && std::abs(value) < 0x1p63 ? fmt::format("{}", static_cast<std::int64_t>(value))
                                                                : fmt::format("{}", value);
}

std::string factor_text(const Factor& factor, int power) {
  std::string base = factor.base.to_string();
  if (factor.base.node().op == Op::kAdd) base = "(" + base + ")";
  return power == 1 ? base : fmt::format("{}^{}", base, power);
}

// The absolute value of a term; the sign goes between terms.
std::string term_text(const Term& term) {
  std::string above;
  std::string below = term.coefficient.denominator == 1 ? "" : "/" + number_text(term.coefficient.denominator);
  for (const Factor& factor : term.factors) {
    if (factor.power > 0) above += (above.empty() ? "" : "*") + factor_text(factor, factor.power);
    if (factor.power < 0) below += "/" + factor_text(factor, -factor.power);
  }
  const double size = std::abs(term.coefficient.numerator);
  if (above.empty()) return number_text(size) + below;
  return (size == 1 ? "" : number_text(size) + "*") + above + below;
}

std::string sum_text(const std::vector<Term>& terms) {
  if (terms.empty()) return "0";
  std::string text;
  for (const Term& term : terms) {
    const bool negative = term.coefficient.numerator < 0;
    if (text.empty()) {
      text = negative ? "-" : "";
    } else {
      text += negative ? " - " : " + ";
    }
    text += term_text(term);
  }
  return text;
}

std::string call_text(std::string_view name, const std::vector<Expr>& operands) {
  std::string text;
  for (const Expr& operand : operands) text += (text.empty() ? "" : ", ") + operand.to_string();
  return fmt::format("{}({})", name, text);
}

}  // namespace

std::string Expr::to_string() const {
  switch (node_->op) {
    case Op::kSymbol: return node_->name;
    case Op::kMax: return call_text("max", node_->operands);
    case Op::kFloor: return call_text("floor", node_->operands);
    case Op::kCeil: return call_text("ceil", node_->operands);
    default: return sum_text(node_->terms);
  }
}

}  // namespace gantry::symbolic
