#include "gantry/spec/symbolic_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"

namespace gantry::spec {
namespace {

constexpr std::array<std::string_view, kSymbolCount> kNames = {"B", "S", "C", "tp"};

std::string factor_text(std::size_t symbol, int power) {
  return power == 1 ? std::string(kNames[symbol]) : fmt::format("{}^{}", kNames[symbol], power);
}

std::string number_text(double value) {
  return value == std::floor(value) && std::abs(value) < 0x1p63 ? fmt::format("{}", static_cast<std::int64_t>(value))
                                                                : fmt::format("{}", value);
}

// The absolute value of a term; the sign goes between terms.
std::string term_text(const SymbolicSize::Term& term) {
  std::string above;
  std::string below;
  for (std::size_t i = 0; i < kSymbolCount; ++i) {
    if (term.powers[i] > 0) above += (above.empty() ? "" : "*") + factor_text(i, term.powers[i]);
    if (term.powers[i] < 0) below += "/" + factor_text(i, -term.powers[i]);
  }
  const double size = std::abs(term.coefficient);
  if (above.empty()) return number_text(size) + below;
  return (size == 1 ? "" : number_text(size) + "*") + above + below;
}

}  // namespace

std::string_view symbol_name(Symbol symbol) { return kNames[static_cast<std::size_t>(symbol)]; }

SymbolicSize::SymbolicSize(double coefficient, std::array<std::int8_t, kSymbolCount> powers) {
  if (coefficient != 0) terms_.push_back({coefficient, powers});
}

SymbolicSize::SymbolicSize(Symbol symbol, int power) {
  Term term{.coefficient = 1};
  term.powers[static_cast<std::size_t>(symbol)] = static_cast<std::int8_t>(power);
  terms_.push_back(term);
}

SymbolicSize& SymbolicSize::operator+=(const SymbolicSize& other) {
  const std::vector<Term> added = other.terms_;  // `other` may be this object
  terms_.insert(terms_.end(), added.begin(), added.end());
  normalise();
  return *this;
}

SymbolicSize& SymbolicSize::operator-=(const SymbolicSize& other) { return *this += other * -1; }

SymbolicSize& SymbolicSize::operator*=(const SymbolicSize& other) {
  std::vector<Term> product;
  product.reserve(terms_.size() * other.terms_.size());
  for (const Term& a : terms_) {
    for (const Term& b : other.terms_) {
      Term term{.coefficient = a.coefficient * b.coefficient};
      for (std::size_t i = 0; i < kSymbolCount; ++i) {
        const int power = a.powers[i] + b.powers[i];
        GANTRY_ASSERT(power >= INT8_MIN && power <= INT8_MAX);
        term.powers[i] = static_cast<std::int8_t>(power);
      }
      product.push_back(term);
    }
  }
  terms_ = std::move(product);
  normalise();
  return *this;
}

void SymbolicSize::normalise() {
  std::sort(terms_.begin(), terms_.end(), [](const Term& a, const Term& b) { return a.powers > b.powers; });
  std::size_t kept = 0;
  for (std::size_t i = 0; i < terms_.size();) {
    Term sum = terms_[i];
    for (++i; i < terms_.size() && terms_[i].powers == sum.powers; ++i) sum.coefficient += terms_[i].coefficient;
    if (sum.coefficient != 0) terms_[kept++] = sum;
  }
  terms_.resize(kept);
}

double SymbolicSize::evaluate(const Bindings& bindings) const {
  const std::array<double, kSymbolCount> values = {bindings.batch, bindings.sequence, bindings.context,
                                                   bindings.tensor_parallel};
  double total = 0;
  for (const Term& term : terms_) {
    double value = term.coefficient;
    double divisor = 1;  // one division at the end keeps whole quotients exact
    for (std::size_t i = 0; i < kSymbolCount; ++i) {
      for (int n = 0; n < term.powers[i]; ++n) value *= values[i];
      for (int n = 0; n > term.powers[i]; --n) divisor *= values[i];
    }
    total += value / divisor;
  }
  return total;
}

std::string SymbolicSize::to_string() const {
  if (terms_.empty()) return "0";
  std::string text;
  for (const Term& term : terms_) {
    const bool negative = term.coefficient < 0;
    if (text.empty()) {
      text = negative ? "-" : "";
    } else {
      text += negative ? " - " : " + ";
    }
    text += term_text(term);
  }
  return text;
}

SymbolicSize per_rank(const SymbolicSize& size) { return size * SymbolicSize(Symbol::kTensorParallel, -1); }

}  // namespace gantry::spec
