#include "gantry/symbolic/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "gantry/base/check.h"
#include "tests/test_support.h"

namespace gantry::symbolic {
namespace {

const std::array<std::string, 4> kNames = {"b", "s", "h", "tp"};

using tests::input_error;

// An expression beside what plain arithmetic gives for the same construction, with a bound on the rounding error that
// cancellation may leave: values of the size of `scale`.
struct Pair {
  Expr expr;
  double value = 0;
  double scale = 0;
};

class Maker {
 public:
  Maker(std::uint32_t seed) : random_(seed) {
    for (std::size_t i = 0; i < kNames.size(); ++i) sizes_[i] = std::uniform_int_distribution(1, 9)(random_);
  }

  const std::array<double, 4>& sizes() const { return sizes_; }
  void resize(std::array<double, 4> sizes) { sizes_ = sizes; }

  Pair make(int depth) {
    if (depth == 0) return leaf();
    const int choice = pick(7);
    const Pair a = make(depth - 1);
    if (choice == 6) return rounded(a);
    const Pair b = make(pick(depth));
    switch (choice) {
      case 0: return {a.expr + b.expr, a.value + b.value, a.scale + b.scale};
      case 1: return {a.expr - b.expr, a.value - b.value, a.scale + b.scale};
      case 2: return {a.expr * b.expr, a.value * b.value, a.scale * b.scale};
      case 3: {
        const Pair size = leaf();
        return {a.expr / (size.expr + 1), a.value / (size.value + 1), a.scale};
      }
      case 4: {
        const Pair size = leaf();
        return {a.expr / size.expr, a.value / size.value, a.scale};
      }
      default: return {max(a.expr, b.expr), std::max(a.value, b.value), std::max(a.scale, b.scale)};
    }
  }

 private:
  int pick(int count) { return std::uniform_int_distribution(0, count - 1)(random_); }

  Pair leaf() {
    if (pick(3) == 0) {
      const double constant = pick(5) + 1;
      return {constant, constant, constant};
    }
    const auto index = static_cast<std::size_t>(pick(4));
    return {sym(kNames[index]), sizes_[index], sizes_[index]};
  }

  // Rounding is not continuous: its operand is a size, so that both ways round the same number.
  Pair rounded(const Pair& a) {
    const Pair size = leaf();
    const double divisor = pick(6) + 1;
    const bool up = pick(2) == 1;
    const Expr expr = up ? ceil(size.expr / divisor) : floor(size.expr / divisor);
    const double value = up ? std::ceil(size.value / divisor) : std::floor(size.value / divisor);
    return {a.expr + expr, a.value + value, a.scale + value};
  }

  std::mt19937 random_;
  std::array<double, 4> sizes_{};
};

double value_of(const Expr& expr, const std::array<double, 4>& sizes) {
  const Program program = compile(std::array{expr});
  std::vector<double> values;
  for (const std::string& symbol : program.symbols()) {
    values.push_back(sizes[static_cast<std::size_t>(std::ranges::find(kNames, symbol) - kNames.begin())]);
  }
  return program.evaluate(values)[0];
}

TEST(Program, EqualsPlainArithmeticOnRandomExpressions) {
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    Maker maker(seed);
    const Pair pair = maker.make(1 + static_cast<int>(seed % 6));
    EXPECT_NEAR(value_of(pair.expr, maker.sizes()), pair.value, 1e-12 * (1 + pair.scale))
        << "seed " << seed << ": " << pair.expr.to_string();
  }
}

TEST(Program, SimplificationHoldsForOtherSizesThanThoseItWasBuiltWith) {
  // The same seed builds the same construction for any sizes; the expression must not depend on them.
  std::mt19937 random(7);
  std::uniform_real_distribution<double> size(0.01, 50);
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    Maker first(seed);
    const Expr expr = first.make(5).expr;
    Maker second(seed);
    second.resize({size(random), size(random), size(random), size(random)});
    const Pair pair = second.make(5);
    ASSERT_EQ(pair.expr, expr);
    // Divisors below 1 enlarge the error.
    EXPECT_NEAR(value_of(expr, second.sizes()), pair.value, 1e-7 * (1 + pair.scale)) << expr.to_string();
  }
}

TEST(Program, ProvableSignsHold) {
  int decided = 0;
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    Maker maker(seed);
    const Pair pair = maker.make(3);
    const auto sign = provable_sign(pair.expr);
    if (!sign) continue;
    ++decided;
    const double slack = 1e-12 * (1 + pair.scale);
    if (*sign >= 0) {
      EXPECT_GE(pair.value, -slack) << pair.expr.to_string();
    }
    if (*sign <= 0) {
      EXPECT_LE(pair.value, slack) << pair.expr.to_string();
    }
  }
  EXPECT_GT(decided, 500);
}

TEST(Program, ComputesEqualPartsOnce) {
  const Expr b = sym("b");
  const Expr s = sym("s");
  const Expr tp = sym("tp");
  EXPECT_EQ(compile(std::array{b}).instructions(), 0u);
  EXPECT_EQ(compile(std::array{b * s, b * s}).instructions(), 1u);
  // b*s once, then 3*, +1; the second output adds /tp.
  EXPECT_EQ(compile(std::array{3 * b * s + 1, b * s / tp}).instructions(), 4u);
  // A max that two outputs share.
  const Expr peak = max(b * s, sym("h"));
  EXPECT_EQ(compile(std::array{peak + 1, peak + 2}).instructions(), 4u);
}

TEST(Program, ComputesSharedPartsOnceHoweverDeepTheyAre) {
  // Written out as a tree this has 2^60 leaves.
  Expr a = sym("b");
  const Expr s = sym("s");
  for (int i = 0; i < 60; ++i) a = max(a * s, floor(a));
  EXPECT_LE(compile(std::array{a}).instructions(), 600u);
}

TEST(Program, EvaluatesColumnsOfAnyLength) {
  const Expr peak = max(2 * sym("b") * sym("s") / sym("tp"), sym("s") + 10) + ceil(sym("s") / 7);
  const Program program = compile(std::array{peak, Expr(4), sym("s")});
  for (const std::size_t rows : {0u, 1u, 255u, 256u, 257u, 1000u}) {
    Columns columns(rows);
    for (const char* name : {"b", "s", "tp"}) columns.column(name);
    for (std::size_t i = 0; i < rows; ++i) {
      columns.column("b")[i] = static_cast<double>(i % 9);
      columns.column("s")[i] = static_cast<double>(i);
      columns.column("tp")[i] = static_cast<double>(1 + i % 3);
    }
    const std::vector<double> values = program.evaluate(columns);
    ASSERT_EQ(values.size(), 3 * rows);
    for (std::size_t i = 0; i < rows; ++i) {
      const auto s = static_cast<double>(i);
      const double product = 2 * static_cast<double>(i % 9) * s / static_cast<double>(1 + i % 3);
      ASSERT_EQ(values[i], std::max(product, s + 10) + std::ceil(s / 7)) << i;
      ASSERT_EQ(values[rows + i], 4);
      ASSERT_EQ(values[2 * rows + i], s);
    }
  }
}

TEST(Program, WholeQuotientsAreExact) {
  const Program program = compile(std::array{floor(sym("b") / 49), floor(sym("b") * sym("s") / (49 * sym("s")))});
  Columns columns(1000);
  for (std::size_t i = 0; i < 1000; ++i) {
    columns.column("b")[i] = 49.0 * static_cast<double>(i);
    columns.column("s")[i] = 2048;
  }
  const auto values = program.evaluate(columns);
  for (std::size_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(values[i], static_cast<double>(i));
    EXPECT_EQ(values[1000 + i], static_cast<double>(i));
  }
}

TEST(Program, NamesWhatItLacksOrCannotCompute) {
  const Program program = compile(std::array{sym("b") / (sym("s") - 3)});
  Columns columns(5);
  columns.column("b")[4] = 1;
  EXPECT_EQ(input_error([&] { program.evaluate(columns); }), "size 's' has no column; add one of 5 rows");
  columns.column("s")[4] = 3;
  EXPECT_EQ(input_error([&] { program.evaluate(columns); }), "division by zero in row 4 (b = 1, s = 3)");
  columns.column("s")[3] = -1;
  EXPECT_EQ(input_error([&] { program.evaluate(columns); }), "size 's' is -1 in row 3, expected a finite number >= 0");
  EXPECT_EQ(input_error([&] { program.evaluate(std::array{1.0}); }), "1 sizes given, expected 2: b, s");
  const Program large = compile(std::array{Expr(1), sym("b") * sym("b")});
  EXPECT_EQ(input_error([&] { large.evaluate(std::array{1e200}); }),
            "output 1 is inf in row 0 (b = 1e+200), expected a finite number");
}

}  // namespace
}  // namespace gantry::symbolic
