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

struct Instruction {
  Op op = Op::kConstant;
  int result = 0;  ///< register
  int left = 0;    ///< register, or the index of a symbol
  int right = 0;
  double constant = 0;
};

class Program {
 public:
  const std::vector<std::string>& symbols() const { return symbols_; }
  std::size_t outputs() const { return outputs_.size(); }
  std::size_t instructions() const { return instructions_.size(); }

  /// Evaluates every output for every row: result[output * rows + row]. InputError names a symbol without a column, and
  /// a division by zero or another non-finite value with its row.
  std::vector<double> evaluate(const Columns& sizes) const;
  /// One configuration; `values` in the order of symbols().
  std::vector<double> evaluate(std::span<const double> values) const;

 private:
  friend Program compile(std::span<const Expr> outputs);
  std::vector<std::string> symbols_;
  std::vector<Instruction> instructions_;
  std::vector<int> outputs_;
  int registers_ = 0;
};

Program compile(std::span<const Expr> outputs);

}  // namespace gantry::symbolic
