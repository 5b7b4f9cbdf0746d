#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"
#include "gantry/symbolic/program.h"

namespace gantry::symbolic {
namespace {

// Rows worked on at a time: a register of 2 KiB, so that a program's registers stay in the first two caches.
constexpr std::size_t kBlock = 256;
constexpr int kImmediate = Instruction::kImmediate;

struct Operands {
  const double* left;
  const double* right;
  double constant;
};

// One loop a shape of operands, each of a kind that compilers vectorise.
template <class Function>
void apply(double* __restrict result, const Operands& operands, std::size_t rows, Function function) {
  const double* __restrict left = operands.left;
  const double* __restrict right = operands.right;
  const double constant = operands.constant;
  if (left == nullptr) {
    for (std::size_t i = 0; i < rows; ++i) result[i] = function(constant, right[i]);
  } else if (right == nullptr) {
    for (std::size_t i = 0; i < rows; ++i) result[i] = function(left[i], constant);
  } else {
    for (std::size_t i = 0; i < rows; ++i) result[i] = function(left[i], right[i]);
  }
}

void execute(Op op, double* result, const Operands& operands, std::size_t rows) {
  switch (op) {
    case Op::kConstant: std::fill_n(result, rows, operands.constant); break;
    case Op::kAdd: apply(result, operands, rows, [](double a, double b) { return a + b; }); break;
    case Op::kMultiply: apply(result, operands, rows, [](double a, double b) { return a * b; }); break;
    case Op::kDivide: apply(result, operands, rows, [](double a, double b) { return a / b; }); break;
    case Op::kMax: apply(result, operands, rows, [](double a, double b) { return a < b ? b : a; }); break;
    case Op::kFloor: apply(result, operands, rows, [](double a, double) { return std::floor(a); }); break;
    case Op::kCeil: apply(result, operands, rows, [](double a, double) { return std::ceil(a); }); break;
    case Op::kSymbol: GANTRY_UNREACHABLE();
  }
}

// "b = 2, s = 16", the sizes of one row.
std::string row_text(const std::vector<std::string>& symbols, std::span<const double* const> columns, std::size_t row) {
  std::string text;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    text += fmt::format("{}{} = {}", i > 0 ? ", " : "", symbols[i], columns[i][row]);
  }
  return text.empty() ? "no sizes" : text;
}

void check_sizes(const std::vector<std::string>& symbols, std::span<const double* const> columns, std::size_t rows) {
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    for (std::size_t row = 0; row < rows; ++row) {
      const double size = columns[i][row];
      GANTRY_CHECK(size >= 0 && std::isfinite(size), "size '{}' is {} in row {}, expected a finite number >= 0",
                   symbols[i], size, row);
    }
  }
}

}  // namespace

std::vector<double> Program::run(std::span<const double* const> columns, std::size_t rows) const {
  check_sizes(symbols_, columns, rows);
  std::vector<double> result(outputs_.size() * rows);
  const std::size_t scratch_registers = static_cast<std::size_t>(registers_) - symbols_.size();
  const std::size_t width = std::min(kBlock, rows);
  std::vector<double> scratch(scratch_registers * width);
  std::vector<const double*> registers(static_cast<std::size_t>(registers_));
  for (std::size_t i = 0; i < scratch_registers; ++i) registers[symbols_.size() + i] = scratch.data() + i * width;
  for (std::size_t first = 0; first < rows; first += width) {
    const std::size_t count = std::min(width, rows - first);
    for (std::size_t i = 0; i < symbols_.size(); ++i) registers[i] = columns[i] + first;
    const auto value = [&](int index) { return index < 0 ? nullptr : registers[static_cast<std::size_t>(index)]; };
    for (const Instruction& step : instructions_) {
      const Operands operands{value(step.left), value(step.right), step.constant};
      if (step.op == Op::kDivide && operands.right != nullptr) {
        const auto zero = std::find(operands.right, operands.right + count, 0.0) - operands.right;
        GANTRY_CHECK(static_cast<std::size_t>(zero) == count, "division by zero in row {} ({})",
                     first + static_cast<std::size_t>(zero),
                     row_text(symbols_, columns, first + static_cast<std::size_t>(zero)));
      }
      const std::size_t place = static_cast<std::size_t>(step.result) - symbols_.size();
      execute(step.op, scratch.data() + place * width, operands, count);
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      std::copy_n(value(outputs_[i]), count, result.data() + i * rows + first);
    }
  }
  const auto bad = std::ranges::find_if(result, [](double x) { return !std::isfinite(x); });
  if (bad != result.end()) {
    const auto index = static_cast<std::size_t>(bad - result.begin());
    base::fail_input("output {} is {} in row {} ({}), expected a finite number", index / rows, *bad, index % rows,
                     row_text(symbols_, columns, index % rows));
  }
  return result;
}

std::vector<double> Program::evaluate(const Columns& sizes) const {
  std::vector<const double*> columns;
  for (const std::string& symbol : symbols_) {
    columns.push_back(sizes.find(symbol));
    GANTRY_CHECK(columns.back() != nullptr, "size '{}' has no column; add one of {} rows", symbol, sizes.rows());
  }
  return run(columns, sizes.rows());
}

std::vector<double> Program::evaluate(std::span<const double> values) const {
  GANTRY_CHECK(values.size() == symbols_.size(), "{} sizes given, expected {}: {}", values.size(), symbols_.size(),
               fmt::join(symbols_, ", "));
  std::vector<const double*> columns;
  for (const double& value : values) columns.push_back(&value);
  return run(columns, 1);
}

}  // namespace gantry::symbolic
