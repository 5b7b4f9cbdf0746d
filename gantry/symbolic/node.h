#pragma once
// The insides of an expression: a sum of terms, each a rational coefficient times whole powers of bases. For printing,
// compiling and walking; expressions are made through expr.h alone.
#include <compare>
#include <cstddef>
#include <string>
#include <vector>

#include "gantry/symbolic/expr.h"

namespace gantry::symbolic {

/// numerator / denominator, in normal form: an odd whole denominator >= 1 without a common factor, so that a quotient
/// of sizes is divided once, at the end, and whole quotients stay exact.
struct Ratio {
  double numerator = 0;
  double denominator = 1;
  double value() const { return numerator / denominator; }
  bool operator==(const Ratio&) const = default;
};

Ratio quotient(double numerator, double denominator);
Ratio operator+(const Ratio& a, const Ratio& b);
Ratio operator*(const Ratio& a, const Ratio& b);

/// base^power. A base is a symbol, max, floor or ceil, or a sum that cannot be multiplied out (a divisor).
struct Factor {
  Expr base;
  int power = 1;
  bool operator==(const Factor&) const = default;
};

struct Term {
  Ratio coefficient = {};
  std::vector<Factor> factors = {};  ///< in the order of compare(), no base twice
};

class Node {
 public:
  Op op = Op::kConstant;            ///< never kDivide: that is a negative power
  std::string name = {};            ///< kSymbol
  std::vector<Term> terms = {};     ///< kConstant (none is zero), kMultiply (one), kAdd (several)
  std::vector<Expr> operands = {};  ///< kMax, kFloor, kCeil
  std::size_t hash = 0;

  /// Fills in the hash.
  static Expr make(Node node);
};

/// A total order of structures; equal means the same expression.
std::strong_ordering compare(const Expr& a, const Expr& b);
std::strong_ordering compare(const std::vector<Factor>& a, const std::vector<Factor>& b);

/// `expr` as a sum of products.
std::vector<Term> terms_of(const Expr& expr);
/// The sum of `terms`, simplified.
Expr from_terms(std::vector<Term> terms);

}  // namespace gantry::symbolic
