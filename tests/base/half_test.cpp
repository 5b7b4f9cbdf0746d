#include "gantry/base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace gantry::base {
namespace {

// The definition of IEEE 754 binary16, in double arithmetic; the oracle of the bit tricks.
double fp16_value(std::uint32_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  const int exponent = static_cast<int>((bits >> 10) & 0x1f);
  const int mantissa = static_cast<int>(bits & 0x3ff);
  if (exponent == 0x1f) return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryFp16ValueReadsAsDefinedAndComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = fp16_to_float(static_cast<std::uint16_t>(bits));
    const double expected = fp16_value(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(fp16_to_float(float_to_fp16(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(std::signbit(value), (bits & 0x8000u) != 0) << bits;
    ASSERT_EQ(float_to_fp16(value), bits);
  }
}

TEST(Half, EveryBf16ValueComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_float(static_cast<std::uint16_t>(bits));
    ASSERT_EQ(std::bit_cast<std::uint32_t>(value), bits << 16);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value)))) << bits;
    } else {
      ASSERT_EQ(float_to_bf16(value), bits);
    }
  }
}

// Between any two neighbours: the middle goes to the even one, a hair above or below to the nearer one.
TEST(Half, Fp16RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t bits = 0; bits < 0x7bffu; ++bits) {
    const double low = fp16_value(bits);
    const double high = fp16_value(bits + 1);
    const auto middle = static_cast<float>((low + high) / 2);  // exact: one bit more than fp16 has
    const std::uint32_t even = (bits & 1u) == 0 ? bits : bits + 1;
    ASSERT_EQ(float_to_fp16(middle), even) << bits;
    ASSERT_EQ(float_to_fp16(std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(float_to_fp16(std::nextafter(middle, 1e9f)), bits + 1) << bits;
    ASSERT_EQ(float_to_fp16(-middle), even | 0x8000u) << bits;
  }
}

TEST(Half, Bf16RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t bits = 0; bits < 0x7f7fu; ++bits) {
    const auto middle = std::bit_cast<float>((bits << 16) | 0x8000u);
    const std::uint32_t even = (bits & 1u) == 0 ? bits : bits + 1;
    ASSERT_EQ(float_to_bf16(middle), even) << bits;
    ASSERT_EQ(float_to_bf16(std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(float_to_bf16(std::nextafter(middle, std::numeric_limits<float>::infinity())), bits + 1) << bits;
  }
}

TEST(Half, OverflowGoesToInfinityAtTheRightPlace) {
  EXPECT_EQ(float_to_fp16(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_fp16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_fp16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_fp16(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace gantry::base
