#include "gantry/symbolic/expr.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/symbolic/node.h"

namespace gantry::symbolic {
namespace {

// Products of sums beyond this many terms stay products.
constexpr std::size_t kMaxExpandedTerms = 256;
constexpr int kMaxPower = 100;

// Merges two ordered factor lists; powers of one base add up.
std::vector<Factor> multiply_factors(const std::vector<Factor>& a, const std::vector<Factor>& b) {
  std::vector<Factor> product;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < a.size() || j < b.size()) {
    const auto order = i == a.size()   ? std::strong_ordering::greater
                       : j == b.size() ? std::strong_ordering::less
                                       : compare(a[i].base, b[j].base);
    if (order < 0) {
      product.push_back(a[i++]);
    } else if (order > 0) {
      product.push_back(b[j++]);
    } else {
      const int power = a[i++].power + b[j].power;
      GANTRY_CHECK(std::abs(power) <= kMaxPower, "expression: power {} of {}, expected at most {}", power,
                   b[j].base.to_string(), kMaxPower);
      if (power != 0) product.push_back({b[j].base, power});
      ++j;
    }
  }
  return product;
}

Term multiply_terms(const Term& a, const Term& b) {
  return {a.coefficient * b.coefficient, multiply_factors(a.factors, b.factors)};
}

bool is_sum(const Expr& expr) { return expr.node().op == Op::kAdd; }

// Whether `expr` is a product in which `sum` occurs as a factor, a divisor for one.
bool has_factor(const Expr& expr, const Expr& sum) {
  if (expr.node().op != Op::kMultiply) return false;
  return std::ranges::any_of(expr.node().terms[0].factors, [&](const Factor& f) { return f.base == sum; });
}

std::vector<Term> as_factor(const Expr& sum) { return {{.coefficient = {1, 1}, .factors = {{sum, 1}}}}; }

// A sum left over as a plain factor of a term (its divisor was cancelled) is multiplied out.
Expr expand(const Term& term) {
  if (term.factors.size() != 1 || term.factors[0].power != 1 || !is_sum(term.factors[0].base)) {
    return from_terms({term});
  }
  std::vector<Term> terms = term.factors[0].base.node().terms;
  for (Term& part : terms) part.coefficient = part.coefficient * term.coefficient;
  return from_terms(std::move(terms));
}

Expr product(const Expr& a, const Expr& b) {
  std::vector<Term> left = is_sum(a) && has_factor(b, a) ? as_factor(a) : terms_of(a);
  std::vector<Term> right = is_sum(b) && has_factor(a, b) ? as_factor(b) : terms_of(b);
  if (left.size() * right.size() > kMaxExpandedTerms && left.size() > 1 && right.size() > 1) {
    left = as_factor(a);
    right = as_factor(b);
  }
  if (left.size() == 1 && right.size() == 1) return expand(multiply_terms(left[0], right[0]));
  std::vector<Term> terms;
  terms.reserve(left.size() * right.size());
  for (const Term& x : left) {
    for (const Term& y : right) terms.push_back(multiply_terms(x, y));
  }
  return from_terms(std::move(terms));
}

Expr reciprocal(const Expr& expr) {
  if (is_sum(expr)) return from_terms({{.coefficient = {1, 1}, .factors = {{expr, -1}}}});
  Term term = terms_of(expr).at(0);
  term.coefficient = quotient(term.coefficient.denominator, term.coefficient.numerator);
  for (Factor& factor : term.factors) factor.power = -factor.power;
  return from_terms({std::move(term)});
}

std::vector<Term> constant_terms(double value) {
  GANTRY_CHECK(std::isfinite(value), "expression: a constant is {}, expected a finite number", value);
  if (value == 0) return {};
  return {{.coefficient = {value, 1}, .factors = {}}};
}

bool is_identifier(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !name.empty() && letter(name[0]) && std::ranges::all_of(name, [&](char c) { return letter(c) || digit(c); });
}

Expr rounded(const Expr& a, Op op) {
  if (const auto value = a.constant()) return op == Op::kFloor ? std::floor(*value) : std::ceil(*value);
  if (a.node().op == Op::kFloor || a.node().op == Op::kCeil) return a;
  return Node::make({.op = op, .operands = {a}});
}

}  // namespace

Expr::Expr() : Expr(0.0) {}

Expr::Expr(double constant) {
  static const Expr zero = Node::make({.op = Op::kConstant});
  if (constant == 0) {
    *this = zero;
    return;
  }
  std::vector<Term> terms = constant_terms(constant);  // outside the node: GCC 12 destroys half of it on a throw
  *this = Node::make({.op = Op::kConstant, .terms = std::move(terms)});
}

Expr::Expr(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

Expr& Expr::operator+=(const Expr& other) {
  std::vector<Term> terms = terms_of(*this);
  const std::vector<Term> added = terms_of(other);
  terms.insert(terms.end(), added.begin(), added.end());
  return *this = from_terms(std::move(terms));
}

Expr& Expr::operator-=(const Expr& other) { return *this += product(other, Expr(-1.0)); }

Expr& Expr::operator*=(const Expr& other) { return *this = product(*this, other); }

Expr& Expr::operator/=(const Expr& other) {
  GANTRY_CHECK(other.constant() != 0.0, "expression: division of {} by zero", to_string());
  if (*this == other) return *this = Expr(1.0);
  return *this = product(*this, reciprocal(other));
}

bool Expr::operator==(const Expr& other) const {
  return node_ == other.node_ || (node_->hash == other.node_->hash && compare(*this, other) == 0);
}

std::optional<double> Expr::constant() const {
  if (node_->op != Op::kConstant) return std::nullopt;
  return node_->terms.empty() ? 0.0 : node_->terms[0].coefficient.value();
}

Expr sym(std::string_view name) {
  GANTRY_CHECK(is_identifier(name), "expression: the symbol's name is '{}', expected letters, digits and underscores",
               name);
  return Node::make({.op = Op::kSymbol, .name = std::string(name)});
}

Expr floor(const Expr& a) { return rounded(a, Op::kFloor); }

Expr ceil(const Expr& a) { return rounded(a, Op::kCeil); }

}  // namespace gantry::symbolic
