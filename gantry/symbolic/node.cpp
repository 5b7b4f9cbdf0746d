#include "gantry/symbolic/node.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace gantry::symbolic {
namespace {

std::strong_ordering order(double a, double b) {
  return a < b ? std::strong_ordering::less : a > b ? std::strong_ordering::greater : std::strong_ordering::equal;
}

std::strong_ordering compare(const Term& a, const Term& b) {
  if (const auto factors = compare(a.factors, b.factors); factors != 0) return factors;
  if (const auto above = order(a.coefficient.numerator, b.coefficient.numerator); above != 0) return above;
  return order(a.coefficient.denominator, b.coefficient.denominator);
}

template <class Item, class Compare>
std::strong_ordering compare_lists(const std::vector<Item>& a, const std::vector<Item>& b, Compare item_order) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (const auto found = item_order(a[i], b[i]); found != 0) return found;
  }
  return a.size() <=> b.size();
}

int degree(const std::vector<Factor>& factors) {
  int total = 0;
  for (const Factor& factor : factors) total += factor.power;
  return total;
}

std::size_t mixed(std::size_t hash, std::size_t value) { return (hash ^ value) * 0x9E3779B97F4A7C15ULL + (hash >> 29); }

std::size_t hash_of(const Node& node) {
  std::size_t hash = mixed(static_cast<std::size_t>(node.op), std::hash<std::string>{}(node.name));
  for (const Term& term : node.terms) {
    hash = mixed(hash, std::hash<double>{}(term.coefficient.numerator));
    hash = mixed(hash, std::hash<double>{}(term.coefficient.denominator));
    for (const Factor& factor : term.factors) {
      hash = mixed(mixed(hash, factor.base.node().hash), static_cast<std::size_t>(factor.power));
    }
  }
  for (const Expr& operand : node.operands) hash = mixed(hash, operand.node().hash);
  return hash;
}

}  // namespace

Expr Node::make(Node node) {
  node.hash = hash_of(node);
  return Expr(std::make_shared<const Node>(std::move(node)));
}

std::strong_ordering compare(const Expr& a, const Expr& b) {
  if (a.shared() == b.shared()) return std::strong_ordering::equal;
  const Node& left = a.node();
  const Node& right = b.node();
  if (left.op != right.op) return left.op <=> right.op;
  if (const auto names = left.name <=> right.name; names != 0) return names;
  const auto by_term = [](const Term& x, const Term& y) { return compare(x, y); };
  if (const auto terms = compare_lists(left.terms, right.terms, by_term); terms != 0) return terms;
  return compare_lists(left.operands, right.operands, [](const Expr& x, const Expr& y) { return compare(x, y); });
}

// Highest degree first, as one writes a polynomial.
std::strong_ordering compare(const std::vector<Factor>& a, const std::vector<Factor>& b) {
  if (const auto degrees = degree(b) <=> degree(a); degrees != 0) return degrees;
  return compare_lists(a, b, [](const Factor& x, const Factor& y) {
    const auto bases = compare(x.base, y.base);
    return bases != 0 ? bases : y.power <=> x.power;
  });
}

std::vector<Term> terms_of(const Expr& expr) {
  const Node& node = expr.node();
  if (node.op == Op::kConstant || node.op == Op::kMultiply || node.op == Op::kAdd) return node.terms;
  return {{.coefficient = {1, 1}, .factors = {{expr, 1}}}};
}

Expr from_terms(std::vector<Term> terms) {
  std::ranges::sort(terms, [](const Term& a, const Term& b) { return compare(a.factors, b.factors) < 0; });
  std::vector<Term> merged;
  for (Term& term : terms) {
    if (!merged.empty() && merged.back().factors == term.factors) {
      merged.back().coefficient = merged.back().coefficient + term.coefficient;
    } else {
      merged.push_back(std::move(term));
    }
  }
  std::erase_if(merged, [](const Term& term) { return term.coefficient.numerator == 0; });
  if (merged.size() > 1) return Node::make({.op = Op::kAdd, .terms = std::move(merged)});
  if (merged.empty() || merged[0].factors.empty()) {
    return Node::make({.op = Op::kConstant, .terms = std::move(merged)});
  }
  const Term& only = merged[0];
  if (only.factors.size() == 1 && only.factors[0].power == 1 && only.coefficient == Ratio{1, 1}) {
    return only.factors[0].base;
  }
  return Node::make({.op = Op::kMultiply, .terms = std::move(merged)});
}

}  // namespace gantry::symbolic
