#pragma once
// Sizes as polynomials over a few named quantities, so that one operator graph serves every batch size, sequence length
// and tensor-parallel degree.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace gantry::spec {

enum class Symbol : std::uint8_t {
  kBatch,           ///< B: sequences in a micro-batch
  kSequence,        ///< S: tokens of a sequence that pass through the model
  kContext,         ///< C: keys that a token attends to; inference only (in training it is S)
  kTensorParallel,  ///< tp: ranks that share each layer; occurs with negative powers only
};
inline constexpr std::size_t kSymbolCount = 4;

/// "B", "S", "C", "tp".
std::string_view symbol_name(Symbol symbol);

/// Values for the symbols.
struct Bindings {
  double batch = 1;
  double sequence = 1;
  double context = 1;
  double tensor_parallel = 1;
};

/// A sum of terms `coefficient * B^i * S^j * C^k * tp^l` with whole powers of either sign. Kept in normal form (like
/// terms merged, zeros dropped, highest powers first), so == compares polynomials. Coefficients are doubles: whole
/// numbers are exact up to 2^53.
class SymbolicSize {
 public:
  struct Term {
    double coefficient = 0;
    std::array<std::int8_t, kSymbolCount> powers{};
    bool operator==(const Term&) const = default;
  };

  SymbolicSize() = default;  ///< zero
  template <class Number>
  requires std::is_arithmetic_v<Number> SymbolicSize(Number constant)
      : SymbolicSize(static_cast<double>(constant), {}) {}  // NOLINT: numbers are sizes
  SymbolicSize(Symbol symbol, int power = 1);               // NOLINT: so are symbols

  SymbolicSize& operator+=(const SymbolicSize& other);
  SymbolicSize& operator-=(const SymbolicSize& other);
  SymbolicSize& operator*=(const SymbolicSize& other);
  friend SymbolicSize operator+(SymbolicSize a, const SymbolicSize& b) { return a += b; }
  friend SymbolicSize operator-(SymbolicSize a, const SymbolicSize& b) { return a -= b; }
  friend SymbolicSize operator*(SymbolicSize a, const SymbolicSize& b) { return a *= b; }
  bool operator==(const SymbolicSize&) const = default;

  bool is_zero() const { return terms_.empty(); }
  const std::vector<Term>& terms() const { return terms_; }
  double evaluate(const Bindings& bindings) const;
  /// Like "1152*B*S/tp + 8*B*S^2"; zero is "0".
  std::string to_string() const;

 private:
  SymbolicSize(double coefficient, std::array<std::int8_t, kSymbolCount> powers);
  void normalise();

  std::vector<Term> terms_;
};

/// The share of one rank where `size` is split evenly: size / tp.
SymbolicSize per_rank(const SymbolicSize& size);

}  // namespace gantry::spec
