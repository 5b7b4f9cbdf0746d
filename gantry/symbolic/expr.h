#pragma once
// Expressions over named sizes: built once, simplified while they are built, compiled once (program.h) and evaluated
// over arrays of configurations. The planner states memory in them (Mist, EuroSys '25, section 5.2).
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace gantry::symbolic {

enum class Op : std::uint8_t { kConstant, kSymbol, kAdd, kMultiply, kDivide, kMax, kFloor, kCeil };

class Node;

/// An immutable expression; copies share their nodes. Every symbol stands for a size: a finite number >= 0, divisors >
/// 0. Simplified on construction into a sum of products: constants folded (quotients of whole numbers stay exact), like
/// factors and like terms merged, products of sums multiplied out, max operands dropped where provable_sign() decides;
/// so equal sums in any order compare equal. InputError for a constant that is not finite and a division by zero.
class Expr {
 public:
  Expr();                 ///< zero
  Expr(double constant);  // NOLINT: numbers are expressions
  explicit Expr(std::shared_ptr<const Node> node);

  Expr& operator+=(const Expr& other);
  Expr& operator-=(const Expr& other);
  Expr& operator*=(const Expr& other);
  Expr& operator/=(const Expr& other);
  friend Expr operator+(Expr a, const Expr& b) { return a += b; }
  friend Expr operator-(Expr a, const Expr& b) { return a -= b; }
  friend Expr operator-(const Expr& a) { return Expr(0.0) - a; }
  friend Expr operator*(Expr a, const Expr& b) { return a *= b; }
  friend Expr operator/(Expr a, const Expr& b) { return a /= b; }
  bool operator==(const Expr& other) const;

  const Node& node() const { return *node_; }
  const std::shared_ptr<const Node>& shared() const { return node_; }
  /// The value of a constant expression.
  std::optional<double> constant() const;
  /// Like "2*b*s^2/tp + max(12*h, b*s)".
  std::string to_string() const;

 private:
  std::shared_ptr<const Node> node_;
};

/// A named size; InputError for a name that is not a C identifier.
Expr sym(std::string_view name);
Expr max(const Expr& a, const Expr& b);
Expr floor(const Expr& a);
Expr ceil(const Expr& a);

/// -1, 0 or 1 where the sign is the same for all sizes >= 0 (1 and -1 allow the value zero too), else nothing. Decides
/// sums of products by the signs of their coefficients, and of a max by those of its operands put in its place.
std::optional<int> provable_sign(const Expr& expr);

}  // namespace gantry::symbolic
