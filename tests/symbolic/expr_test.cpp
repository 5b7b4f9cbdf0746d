#include "gantry/symbolic/expr.h"

#include <gtest/gtest.h>

#include <limits>

#include "gantry/base/check.h"
#include "gantry/symbolic/node.h"
#include "tests/test_support.h"

namespace gantry::symbolic {
namespace {

const Expr kA = sym("a");
const Expr kB = sym("b");
const Expr kC = sym("c");
const Expr kTp = sym("tp");

using tests::input_error;

// ---- simplification ----

TEST(Expr, MergesLikeTermsInAnyOrder) {
  EXPECT_EQ(kA + kB + kA, kB + 2 * kA);
  EXPECT_EQ(kA * kB * kA + 3 * kB * kA * kA, 4 * kA * kA * kB);
  EXPECT_EQ((kA + kB) + (kC + 1), (1 + kC) + (kB + kA));
  EXPECT_EQ(kA - kA, Expr(0));
  EXPECT_EQ((kA + kB) - kB, kA);
  EXPECT_NE(kA * kA, kA);
  EXPECT_NE(kA, kB);
}

TEST(Expr, FoldsConstants) {
  EXPECT_EQ((Expr(2) * 3 + 4).constant(), 10);
  EXPECT_EQ((kA * 0).constant(), 0);
  EXPECT_EQ((Expr(1) / 3 * 3).constant(), 1);
  EXPECT_EQ(kA.constant(), std::nullopt);
  EXPECT_EQ(max(3, 5).constant(), 5);
  EXPECT_EQ(floor(2.75).constant(), 2);
  EXPECT_EQ(ceil(-2.75).constant(), -2);
  EXPECT_EQ(floor(Expr(7) / 7).constant(), 1);
}

TEST(Expr, MultipliesSumsOut) {
  EXPECT_EQ((kA + kB) * (kA - kB), kA * kA - kB * kB);
  EXPECT_EQ(kA * (kB + 1), kA * kB + kA);
  EXPECT_EQ((kA + kB) * 2, 2 * kA + 2 * kB);
}

TEST(Expr, AddsPowersUpAndCancelsDivisors) {
  EXPECT_EQ(kA * kA / kA, kA);
  EXPECT_EQ(kA / kTp * kTp, kA);
  EXPECT_EQ(kA / kTp / kTp, kA / (kTp * kTp));
  EXPECT_EQ((kA + kB) / (kA + kB), Expr(1));
  EXPECT_EQ(kC / (kA + kB) * (kA + kB), kC);
  EXPECT_EQ(2 / (kA + kB) * (kA + kB) - 2, Expr(0));
  EXPECT_EQ(kTp / kA * (kA / kTp), Expr(1));
}

TEST(Expr, KeepsQuotientsOfWholeNumbersExact) {
  // 49 * (1.0 / 49) is below 1.
  EXPECT_EQ(floor(kA / 49 * 49), floor(kA));
  EXPECT_EQ(kA / 3 + kA / 6, kA / 2);
  EXPECT_EQ(kA / -6 * 4, -2 * kA / 3);
  EXPECT_EQ(quotient(-6, 4), (Ratio{-1.5, 1}));
  EXPECT_EQ(quotient(10, 35), (Ratio{2, 7}));
  EXPECT_EQ(quotient(1, 0.1).value(), 10);
}

TEST(Expr, LeavesLongProductsUnexpanded) {
  Expr many;
  for (int i = 0; i < 20; ++i) many += sym("x" + std::to_string(i));
  const Expr product = many * many;
  EXPECT_EQ(product.node().op, Op::kMultiply);
  EXPECT_EQ(product / many, many);
  EXPECT_EQ(product, many * many);
}

TEST(Expr, OperatorsMayTakeTheirOwnObject) {
  Expr a = kA + 1;
  a += a;
  EXPECT_EQ(a, 2 * kA + 2);
  a -= a;
  EXPECT_EQ(a, Expr(0));
  a = kA + 1;
  a *= a;
  EXPECT_EQ(a, kA * kA + 2 * kA + 1);
  a /= a;
  EXPECT_EQ(a, Expr(1));
}

// ---- max ----

TEST(ExprMax, DropsWhatAnotherOperandCovers) {
  EXPECT_EQ(max(kA, kA), kA);
  EXPECT_EQ(max(kA + kB, kA), kA + kB);
  EXPECT_EQ(max(kA, 2 * kA), 2 * kA);
  EXPECT_EQ(max(kA, 0), kA);
  EXPECT_EQ(max(-kA, kB), kB);
  EXPECT_EQ(max(max(kA, kB), kA + kB), kA + kB) << "covers both";
  EXPECT_EQ(max(max(kA, kB) + 1, kA), max(kA, kB) + 1);
  EXPECT_EQ(max(kA * kB / kTp, kA * kB / kTp + kC / kTp), (kA * kB + kC) / kTp);
}

TEST(ExprMax, KeepsWhatIsUndecidedFlatAndInOrder) {
  const Expr both = max(kA, kB);
  EXPECT_EQ(both, max(kB, kA));
  EXPECT_EQ(max(both, kC), max(kC, max(kB, kA)));
  EXPECT_EQ(max(both, kC).node().operands.size(), 3u);
  EXPECT_EQ(max(both, kA).node().operands.size(), 2u);
  EXPECT_EQ(max(kA * kA, kA).node().operands.size(), 2u) << "a size may be below one";
}

// ---- signs ----

TEST(ProvableSign, DecidesSumsOfProducts) {
  EXPECT_EQ(provable_sign(0), 0);
  EXPECT_EQ(provable_sign(-3), -1);
  EXPECT_EQ(provable_sign(kA), 1);
  EXPECT_EQ(provable_sign(2 * kA * kB / kTp + 1), 1);
  EXPECT_EQ(provable_sign(-kA - kB), -1);
  EXPECT_EQ(provable_sign(kA - kB), std::nullopt);
  EXPECT_EQ(provable_sign(kA - 1), std::nullopt);
  EXPECT_EQ(provable_sign(kA / (kB + 1)), 1);
  EXPECT_EQ(provable_sign(kA / (kB - kC)), std::nullopt);
  EXPECT_EQ(provable_sign(kA / ((kB - kC) * (kB - kC))), std::nullopt) << "multiplied out";
  EXPECT_EQ(provable_sign(floor(kA / kTp)), 1);
  EXPECT_EQ(provable_sign(ceil(-kA)), -1);
}

TEST(ProvableSign, PutsOperandsInThePlaceOfAMax) {
  const Expr greatest = max(kA, kB);
  EXPECT_EQ(provable_sign(greatest - kA), 1);
  EXPECT_EQ(provable_sign(kA - greatest), -1);
  EXPECT_EQ(provable_sign(kA + kB - greatest), 1);
  EXPECT_EQ(provable_sign(kC * greatest - kC * kB), 1);
  EXPECT_EQ(provable_sign(greatest - kC), std::nullopt);
  EXPECT_EQ(provable_sign(greatest - max(kA, kC)), std::nullopt);
  EXPECT_EQ(provable_sign(max(greatest, kC) - greatest), 1);
  EXPECT_EQ(provable_sign(max(kA - kB, -kC)), std::nullopt);
  EXPECT_EQ(provable_sign(max(-kA, -kB)), -1);
}

// ---- text ----

TEST(ExprText, ReadsLikeAFormula) {
  const Expr s = sym("s");
  const Expr h = sym("h");
  EXPECT_EQ((2 * kB * s * s / kTp + max(12 * h, kB * s)).to_string(), "2*b*s^2/tp + max(b*s, 12*h)");
  EXPECT_EQ(Expr(0).to_string(), "0");
  EXPECT_EQ(Expr(-2.5).to_string(), "-2.5");
  EXPECT_EQ((kA - kB).to_string(), "a - b");
  EXPECT_EQ((1 - kA).to_string(), "-a + 1");
  EXPECT_EQ((2 * kA / 3).to_string(), "2*a/3");
  EXPECT_EQ((1 / kTp).to_string(), "1/tp");
  EXPECT_EQ((kC / (kA + kB)).to_string(), "c/(a + b)");
  EXPECT_EQ((kA / kTp / kTp).to_string(), "a/tp^2");
  EXPECT_EQ(floor(ceil(kA / 2)).to_string(), "ceil(0.5*a)");
  EXPECT_EQ(Expr(1e300).to_string(), "1e+300");
}

// ---- errors ----

TEST(ExprErrors, SayWhatIsWrong) {
  EXPECT_EQ(input_error([] { sym("2b"); }),
            "expression: the symbol's name is '2b', expected letters, digits and underscores");
  EXPECT_EQ(input_error([] { sym(""); }),
            "expression: the symbol's name is '', expected letters, digits and underscores");
  EXPECT_EQ(input_error([] { kA / Expr(0); }), "expression: division of a by zero");
  EXPECT_EQ(input_error([] { kA / (kB - kB); }), "expression: division of a by zero");
  EXPECT_EQ(input_error([] { Expr(std::numeric_limits<double>::infinity()); }),
            "expression: a constant is inf, expected a finite number");
  EXPECT_EQ(input_error([] { Expr(1e200) * Expr(1e200); }), "expression: a constant is inf, expected a finite number");
  EXPECT_EQ(input_error([] {
              Expr power = kA;
              for (int i = 0; i < 10; ++i) power *= power;
            }),
            "expression: power 128 of a, expected at most 100");
}

}  // namespace
}  // namespace gantry::symbolic
