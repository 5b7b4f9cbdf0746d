#pragma once
// A compiled set of expressions: common subexpressions evaluated once, column by column over arrays of configurations.
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/symbolic/expr.h"

namespace gantry::symbolic {

/// Named columns of equal length.
class Columns {
 public:
  explicit Columns(std::size_t rows) : rows_(rows) {}
  std::size_t rows() const { return rows_; }
  /// Adds (or returns) the column of that name, filled with 0.
  std::span<double> column(std::string_view name);
  /// Null where there is none.
  const double* find(std::string_view name) const;

 private:
  std::size_t rows_;
  std::vector<std::string> names_;
  std::vector<std::vector<double>> values_;
};

/// Registers below the number of symbols are the symbols' columns; the others are scratch.
struct Instruction {
  static constexpr int kImmediate = -1;  ///< this operand is `constant`
  Op op = Op::kConstant;                 ///< never kSymbol
  int result = 0;
  int left = kImmediate;
  int right = kImmediate;
  double constant = 0;
};

class Program {
 public:
  const std::vector<std::string>& symbols() const { return symbols_; }
  std::size_t outputs() const { return outputs_.size(); }
  std::size_t instructions() const { return instructions_.size(); }

  /// Evaluates every output for every row: result[output * rows + row]. InputError names a symbol without a column, a
  /// size that is negative or not finite, and a division by zero or another non-finite value, each with its row.
  std::vector<double> evaluate(const Columns& sizes) const;
  /// One configuration; `values` in the order of symbols().
  std::vector<double> evaluate(std::span<const double> values) const;

 private:
  friend class Compiler;
  std::vector<double> run(std::span<const double* const> columns, std::size_t rows) const;

  std::vector<std::string> symbols_;
  std::vector<Instruction> instructions_;
  std::vector<int> outputs_;
  int registers_ = 0;  ///< symbols and scratch
};

/// Equal subexpressions are computed once, in whichever output they occur.
Program compile(std::span<const Expr> outputs);

}  // namespace gantry::symbolic
