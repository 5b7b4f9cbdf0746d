#include "gantry/spec/symbolic_size.h"

#include <gtest/gtest.h>

#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using testing::kB;
using testing::kS;

TEST(SymbolicSize, MergesLikeTermsAndDropsZeros) {
  const SymbolicSize size = kB * kS * 2 + 3 + kS * kB * 5 - kS * 0 + 4;
  EXPECT_EQ(size, kB * kS * 7 + 7);
  EXPECT_EQ(size.terms().size(), 2u);
  EXPECT_TRUE((size - size).is_zero());
  EXPECT_TRUE((size * 0).is_zero());
}

TEST(SymbolicSize, MultipliesOut) {
  EXPECT_EQ((kB + kS) * (kB - kS), kB * kB - kS * kS);
  SymbolicSize square = kB + 1;
  square *= square;
  EXPECT_EQ(square, kB * kB + kB * 2 + 1);
  SymbolicSize doubled = kS + 1;
  doubled += doubled;
  EXPECT_EQ(doubled, kS * 2 + 2);
}

TEST(SymbolicSize, DividesByTheTensorParallelDegree) {
  const SymbolicSize share = per_rank(kB * kS * 1152);
  EXPECT_EQ(share.evaluate({.batch = 2, .sequence = 5, .tensor_parallel = 4}), 2880);
  EXPECT_EQ(share * Symbol::kTensorParallel, kB * kS * 1152);
  // A single division: 9/3 is 3 and not 9 * (1/3).
  EXPECT_EQ(per_rank(9).evaluate({.tensor_parallel = 3}), 3);
}

TEST(SymbolicSize, PrintsTermsByFallingPower) {
  EXPECT_EQ(SymbolicSize().to_string(), "0");
  EXPECT_EQ((SymbolicSize(2) * kB * kS * 576 * SymbolicSize(Symbol::kTensorParallel, -1)).to_string(), "1152*B*S/tp");
  EXPECT_EQ((kS * kS * kB * 8 - kB + SymbolicSize(Symbol::kContext) * 0.5 + 7).to_string(), "8*B*S^2 - B + 0.5*C + 7");
  EXPECT_EQ(SymbolicSize(Symbol::kTensorParallel, -2).to_string(), "1/tp^2");
  EXPECT_EQ((kB * -3).to_string(), "-3*B");
  EXPECT_EQ(symbol_name(Symbol::kTensorParallel), "tp");
}

TEST(SymbolicSize, EvaluatesLargeSizesExactly) {
  const SymbolicSize flops = kB * kS * kS * 4 * 8192;
  EXPECT_EQ(flops.evaluate({.batch = 8, .sequence = 8192}), 4.0 * 8192 * 8 * 8192 * 8192);
}

}  // namespace
}  // namespace gantry::spec
