// A float in the last bits of 32 others: what comes back, and what that does to them.
#include <array>

#include "gantry/kernels/cpu/last_bits.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Row = std::array<float, kLastBitsWidth>;

constexpr float kInf = std::numeric_limits<float>::infinity(), kSmallest = std::numeric_limits<float>::min();

std::uint32_t pattern(float value) {
  std::uint32_t result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

float of_pattern(std::uint32_t bits) {
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

Row random_row(std::uint64_t seed, double deviation) {
  Row row;
  const Doubles values = normal(kLastBitsWidth, seed, deviation);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(values[i]);
  return row;
}

Row marked(Row row, float value, float usual) {
  write_last_bits(row.data(), value, usual);
  return row;
}

std::vector<float> values() {
  std::vector<float> result{0.0f,
                            -0.0f,
                            1.0f,
                            -1.0f,
                            kInf,
                            -kInf,
                            1e38f,
                            kSmallest,
                            of_pattern(1),
                            316.22775f,
                            of_pattern(0xffffffffu),
                            std::nanf("")};
  base::CounterRandom random(3);
  for (int i = 0; i < 1000; ++i)
    result.push_back(of_pattern(static_cast<std::uint32_t>(random.below(1u << 31) * 2 + 1)));
  return result;
}

TEST(LastBitsRaw, EveryFloatComesBackBitByBit) {
  for (const float value : values()) {
    for (const float usual : {-kInf, 2.0f}) {
      for (const double deviation : {1.0, 1e-40, 0.0, 1e38}) {
        Row row = random_row(1, deviation);
        for (float& x : row) x = std::isfinite(x) ? x : 1.0f;
        row = marked(row, value, usual);
        // +0 is written as -0: 32 zeros mean the usual value.
        const std::uint32_t expected = pattern(value) == 0 ? 0x80000000u : pattern(value);
        EXPECT_EQ(pattern(read_last_bits(row.data(), usual)), expected) << value << " beside " << usual;
      }
    }
  }
}

TEST(LastBitsRaw, AnElementMovesByAtMostOneUlpAndKeepsItsSign) {
  int moved = 0;
  for (const float value : values()) {
    for (const double deviation : {1e-30, 1.0, 1e30}) {
      const Row before = random_row(2, deviation), after = marked(before, value, -kInf);
      for (std::size_t i = 0; i < before.size(); ++i) {
        const double step = std::abs(static_cast<double>(after[i]) - static_cast<double>(before[i]));
        ASSERT_LE(step, std::abs(static_cast<double>(before[i])) * 0x1p-23) << before[i] << " became " << after[i];
        moved += step != 0 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(moved, 1000);
}

TEST(LastBitsRaw, LimitsOfTheRangeStayFinite) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (const float x : {kLargest, -kLargest, of_pattern(0x7f7ffffeu), kSmallest, -kSmallest}) {
    Row row;
    row.fill(x);
    for (const float value : {of_pattern(0xffffffffu), of_pattern(0x55555555u), -kInf}) {
      for (const float y : marked(row, value, -kInf)) {
        EXPECT_TRUE(std::isnormal(y) && std::abs(y - x) <= std::abs(x) * 0x1p-23f) << x << " became " << y;
      }
    }
  }
}

TEST(LastBitsRaw, TheUsualValueLeavesZerosAlone) {
  Row zeros{};
  for (std::size_t i = 0; i < zeros.size(); i += 3) zeros[i] = -0.0f;
  for (const float usual : {-kInf, 316.22775f, 0.0f}) {
    const Row after = marked(zeros, usual, usual);
    EXPECT_EQ(std::memcmp(after.data(), zeros.data(), sizeof(Row)), 0) << usual;
    EXPECT_EQ(pattern(read_last_bits(after.data(), usual)), pattern(usual));
  }
}

TEST(LastBitsRaw, NoDenormalIsMade) {
  for (const float x : {0.0f, -0.0f, of_pattern(0x000fffffu), of_pattern(0x807fffffu)}) {
    Row row;
    row.fill(x);
    const Row after = marked(row, of_pattern(0x5a5a5a5au), -kInf);
    for (std::uint32_t i = 0; i < kLastBitsWidth; ++i) {
      if ((0x5a5a5a5au >> i & 1u) != 0) {
        EXPECT_EQ(after[i], std::copysign(of_pattern(0x00800001u), x));
      } else {
        EXPECT_EQ(pattern(after[i]), pattern(x) & ~1u);
      }
    }
  }
}

TEST(LastBitsRaw, InfinitiesAndNanStayAndTheRowReadsAsNan) {
  for (const float odd : {kInf, -kInf, std::nanf(""), of_pattern(0xff800001u)}) {
    for (std::size_t at = 0; at < kLastBitsWidth; ++at) {
      Row row = random_row(4, 1.0);
      row[at] = odd;
      for (const float value : {1.5f, -kInf, of_pattern(0xffffffffu)}) {
        const Row after = marked(row, value, -kInf);
        EXPECT_EQ(pattern(after[at]), pattern(odd)) << at;
        EXPECT_TRUE(std::isnan(read_last_bits(after.data(), -kInf))) << at;
      }
    }
  }
}

}  // namespace
}  // namespace gantry::kernels
