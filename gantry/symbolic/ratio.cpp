#include <cmath>
#include <cstdint>
#include <numeric>

#include "gantry/base/check.h"
#include "gantry/symbolic/node.h"

namespace gantry::symbolic {
namespace {

// Longer denominators are not those of sizes; they are divided at once.
constexpr double kMaxDenominator = 0x1p31;

struct Dyadic {
  std::int64_t odd = 0;
  int exponent = 0;
};

// value == odd * 2^exponent; true of every finite double but 0.
Dyadic split(double value) {
  int exponent = 0;
  auto odd = static_cast<std::int64_t>(std::ldexp(std::frexp(value, &exponent), 53));
  exponent -= 53;
  while (odd % 2 == 0) {
    odd /= 2;
    ++exponent;
  }
  return {odd, exponent};
}

double checked(double value) {
  GANTRY_CHECK(std::isfinite(value), "expression: a constant is {}, expected a finite number", value);
  return value;
}

}  // namespace

Ratio quotient(double numerator, double denominator) {
  checked(numerator);
  checked(denominator);
  GANTRY_CHECK(denominator != 0, "expression: division of {} by zero", numerator);
  if (numerator == 0) return {};
  const Dyadic below = split(denominator);
  const auto whole = static_cast<double>(std::abs(below.odd));
  if (whole > kMaxDenominator) return {checked(numerator / denominator), 1};
  const Dyadic above = split(numerator);
  const std::int64_t common = std::gcd(above.odd, below.odd);
  const double odd = static_cast<double>(above.odd / common) * (below.odd < 0 ? -1 : 1);
  return {checked(std::ldexp(odd, above.exponent - below.exponent)), whole / static_cast<double>(common)};
}

Ratio operator+(const Ratio& a, const Ratio& b) {
  if (a.denominator == b.denominator) return quotient(a.numerator + b.numerator, a.denominator);
  return quotient(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator);
}

Ratio operator*(const Ratio& a, const Ratio& b) {
  return quotient(a.numerator * b.numerator, a.denominator * b.denominator);
}

}  // namespace gantry::symbolic
