#include "gantry/formats/dtype.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace gantry::formats {
namespace {

TEST(DType, NamesRoundTripForEveryType) {
  for (int i = 0; i <= static_cast<int>(DType::kC64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_GE(dtype_bytes(dtype), 1u);
  }
  EXPECT_EQ(parse_dtype("F31"), std::nullopt);
  EXPECT_EQ(parse_dtype("f32"), std::nullopt);
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_EQ(dtype_bytes(DType::kBF16), 2u);
}

TEST(CheckedNumel, MultipliesAndCountsScalarsAndEmptyTensors) {
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{}), 1);
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{2, 3, 4}), 24);
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{2, 0, 4}), 0);
  EXPECT_EQ(checked_bytes(std::vector<std::int64_t>{2, 3}, DType::kF64), 48u);
}

TEST(CheckedNumel, RefusesOverflowAndNegativeSizes) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{-1}), std::nullopt);
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{kHuge, 4}), std::nullopt);
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{kHuge, 4, 0}), std::nullopt) << "strides would overflow";
  EXPECT_EQ(checked_numel(std::vector<std::int64_t>{kHuge}), kHuge);
  EXPECT_EQ(checked_bytes(std::vector<std::int64_t>{kHuge}, DType::kF32), std::nullopt);
}

}  // namespace
}  // namespace gantry::formats
