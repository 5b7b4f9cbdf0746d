// Signs that hold for all sizes, and max, which drops what they decide.
#include <algorithm>
#include <utility>
#include <vector>

#include "gantry/symbolic/node.h"

namespace gantry::symbolic {
namespace {

// Sums that hold several max are tried with every operand of each in its place; this many in all.
constexpr int kMaxTries = 128;

std::optional<int> sign_of(const Expr& expr, int& tries);

std::optional<int> sign_of_factor(const Factor& factor, int& tries) {
  if (factor.power % 2 == 0) return 1;
  return sign_of(factor.base, tries);
}

std::optional<int> sign_of_term(const Term& term, int& tries) {
  int sign = term.coefficient.numerator < 0 ? -1 : 1;
  for (const Factor& factor : term.factors) {
    const auto part = sign_of_factor(factor, tries);
    if (!part) return std::nullopt;
    sign *= *part;
  }
  return sign;
}

// The sign of the greatest of several values.
std::optional<int> sign_of_greatest(const std::vector<std::optional<int>>& signs) {
  if (std::ranges::find(signs, std::optional(1)) != signs.end()) return 1;
  const bool zero = std::ranges::find(signs, std::optional(0)) != signs.end();
  if (std::ranges::find(signs, std::optional<int>()) != signs.end()) return zero ? std::optional(1) : std::nullopt;
  return zero ? 0 : -1;
}

std::optional<int> negated(std::optional<int> sign) { return sign ? std::optional(-*sign) : sign; }

// weight * max(a, b) + rest is the greatest of weight * a + rest and weight * b + rest where weight >= 0, else the
// least.
std::optional<int> sign_by_operands(const std::vector<Term>& terms, std::size_t index, std::size_t factor, int& tries) {
  Term weight = terms[index];
  const Expr chosen = weight.factors[factor].base;
  weight.factors.erase(weight.factors.begin() + static_cast<std::ptrdiff_t>(factor));
  const auto weight_sign = sign_of_term(weight, tries);
  if (!weight_sign) return std::nullopt;
  std::vector<Term> others = terms;
  others.erase(others.begin() + static_cast<std::ptrdiff_t>(index));
  const Expr rest = from_terms(std::move(others));
  std::vector<std::optional<int>> signs;
  for (const Expr& operand : chosen.node().operands) {
    const auto sign = sign_of(from_terms({weight}) * operand + rest, tries);
    signs.push_back(*weight_sign < 0 ? negated(sign) : sign);
  }
  const auto greatest = sign_of_greatest(signs);
  return *weight_sign < 0 ? negated(greatest) : greatest;
}

std::optional<int> sign_of_terms(const std::vector<Term>& terms, int& tries) {
  bool positive = false;
  bool negative = false;
  bool unknown = false;
  for (const Term& term : terms) {
    const auto sign = sign_of_term(term, tries);
    unknown |= !sign;
    positive |= sign == 1;
    negative |= sign == -1;
  }
  if (!unknown && !(positive && negative)) return positive ? 1 : negative ? -1 : 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    for (std::size_t j = 0; j < terms[i].factors.size(); ++j) {
      const Factor& factor = terms[i].factors[j];
      if (factor.base.node().op != Op::kMax || factor.power != 1) continue;
      if (const auto sign = sign_by_operands(terms, i, j, tries)) return sign;
    }
  }
  return std::nullopt;
}

std::optional<int> sign_of(const Expr& expr, int& tries) {
  if (--tries < 0) return std::nullopt;
  const Node& node = expr.node();
  switch (node.op) {
    case Op::kSymbol: return 1;
    case Op::kFloor:
    case Op::kCeil: return sign_of(node.operands[0], tries);
    case Op::kMax: {
      std::vector<std::optional<int>> signs;
      for (const Expr& operand : node.operands) signs.push_back(sign_of(operand, tries));
      return sign_of_greatest(signs);
    }
    default: return sign_of_terms(node.terms, tries);
  }
}

void add_operand(std::vector<Expr>& kept, const Expr& operand) {
  const auto covers = [](const Expr& a, const Expr& b) { return provable_sign(a - b).value_or(-1) >= 0; };
  if (std::ranges::any_of(kept, [&](const Expr& other) { return covers(other, operand); })) return;
  std::erase_if(kept, [&](const Expr& other) { return covers(operand, other); });
  kept.push_back(operand);
}

}  // namespace

std::optional<int> provable_sign(const Expr& expr) {
  int tries = kMaxTries;
  return sign_of(expr, tries);
}

Expr max(const Expr& a, const Expr& b) {
  std::vector<Expr> kept;
  for (const Expr* side : {&a, &b}) {
    if (side->node().op != Op::kMax) {
      add_operand(kept, *side);
      continue;
    }
    for (const Expr& operand : side->node().operands) add_operand(kept, operand);
  }
  if (kept.size() == 1) return kept[0];
  std::ranges::sort(kept, [](const Expr& x, const Expr& y) { return compare(x, y) < 0; });
  return Node::make({.op = Op::kMax, .operands = std::move(kept)});
}

}  // namespace gantry::symbolic
