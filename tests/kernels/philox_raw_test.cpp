// Random bits of dropout: the generator against its published vectors, every instruction set against it, and the
// statistics of masks.
#include "gantry/kernels/cpu/philox_raw.h"

#include "gantry/kernels/cpu/philox.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

void expect_block(std::uint64_t key, std::uint64_t low, std::uint64_t high, const std::vector<std::uint32_t>& words) {
  const scalar::PhiloxBlock block = scalar::philox(key, low, high);
  EXPECT_EQ(std::vector<std::uint32_t>(block.words, block.words + 4), words);
}

TEST(PhiloxRaw, PublishedVectors) {
  expect_block(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint64_t ones = ~std::uint64_t{0};
  expect_block(ones, ones, ones, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect_block(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e,
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

// What the rule's text says, element by element.
bool keeps(const DropoutRule& rule, std::uint64_t element) {
  const scalar::PhiloxBlock block = scalar::philox(rule.seed, element / 8, rule.stream);
  const auto lane = static_cast<unsigned>(element % 8);
  return ((block.words[lane / 2] >> (16 * (lane % 2))) & 0xffffu) >= rule.threshold;
}

bool bit(const std::vector<std::uint8_t>& bits, std::int64_t i) {
  return (bits[static_cast<std::size_t>(i / 8)] >> (i % 8) & 1) != 0;
}

TEST(PhiloxRaw, EveryInstructionSetAndEveryStartGivesTheSameBits) {
  for (const std::uint32_t threshold : {0u, 1u, 6554u, 32768u, 65535u, kDropAll}) {
    const DropoutRule rule{0x123456789abcdef0u, 0xfedcba9876543210u, threshold};
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{3}, std::uint64_t{8}, std::uint64_t{8 * 77 + 7},
                                      (std::uint64_t{1} << 35) - 24, (std::uint64_t{1} << 35) + 1}) {
      for (const std::int64_t count : {1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 700}) {
        for (const auto& version : GANTRY_ISA_VERSIONS(dropout_keep_bits)) {
          SCOPED_TRACE(::testing::Message() << base::isa_name(version.isa) << " from " << first << ", " << count);
          std::vector<std::uint8_t> bits(static_cast<std::size_t>(count + 7) / 8 + 1, 0xa5);
          version.run(rule, first, count, bits.data());
          for (std::int64_t i = 0; i < count; ++i) {
            ASSERT_EQ(bit(bits, i), keeps(rule, first + static_cast<std::uint64_t>(i))) << i;
          }
          for (std::int64_t i = count; i < (count + 7) / 8 * 8; ++i) ASSERT_FALSE(bit(bits, i));
          ASSERT_EQ(bits.back(), 0xa5) << "wrote behind";
        }
      }
    }
  }
}

TEST(PhiloxRaw, RateAndVarianceOfMasksAreThoseOfTheThreshold) {
  constexpr std::int64_t kCount = 1 << 20, kBlock = 256;
  for (const double p : {0.02, 0.1, 0.5, 0.9}) {
    SCOPED_TRACE(p);
    const DropoutRule rule{17, 5, dropout_threshold(p)};
    const double keep = 1 - rule.threshold / 65536.0;
    std::vector<std::uint8_t> bits(kCount / 8);
    scalar::dropout_keep_bits(rule, 0, kCount, bits.data());
    double kept = 0, square = 0;
    for (std::int64_t begin = 0; begin < kCount; begin += kBlock) {
      double in_block = 0;
      for (std::int64_t i = 0; i < kBlock; ++i) in_block += bit(bits, begin + i);
      kept += in_block;
      square += (in_block - kBlock * keep) * (in_block - kBlock * keep);
    }
    EXPECT_NEAR(kept / kCount, keep, 5 * std::sqrt(keep * (1 - keep) / kCount));
    // The variance of sums over blocks: correlated elements would change it.
    const double blocks = static_cast<double>(kCount) / kBlock, expected = kBlock * keep * (1 - keep);
    EXPECT_NEAR(square / blocks / expected, 1, 5 * std::sqrt(2.5 / blocks));
  }
}

TEST(PhiloxRaw, SeedsStreamsAndPositionsAreUncorrelated) {
  constexpr std::int64_t kCount = 1 << 18;
  const std::uint32_t half = dropout_threshold(0.5);
  const auto mask = [&](std::uint64_t seed, std::uint64_t stream, std::uint64_t first) {
    std::vector<std::uint8_t> bits(kCount / 8);
    scalar::dropout_keep_bits({seed, stream, half}, first, kCount, bits.data());
    return bits;
  };
  const auto base = mask(1, 1, 0);
  for (const auto& other : {mask(2, 1, 0), mask(1, 2, 0), mask(1, 1, kCount), mask(1, 1, 1), mask(1ull << 32 | 1, 1, 0),
                            mask(1, 1ull << 32 | 1, 0)}) {
    double equal = 0;
    for (std::int64_t i = 0; i < kCount; ++i) equal += bit(base, i) == bit(other, i);
    EXPECT_NEAR(equal / kCount, 0.5, 5 * 0.5 / std::sqrt(static_cast<double>(kCount)));
  }
}

TEST(PhiloxRaw, ThresholdsAndScalesKeepTheMean) {
  EXPECT_EQ(dropout_threshold(0), 0u);
  EXPECT_EQ(dropout_threshold(0.1), 6554u);
  EXPECT_EQ(dropout_threshold(1), kDropAll);
  EXPECT_EQ(keep_scale(0), 1.0f);
  EXPECT_EQ(keep_scale(32768), 2.0f);
  EXPECT_EQ(keep_scale(kDropAll), 0.0f);
  EXPECT_NEAR(keep_scale(6554) * (1 - 6554 / 65536.0), 1, 1e-7);
}

TEST(PhiloxRaw, FactorsFollowTheBits) {
  float factors[16];
  for (const unsigned bits : {0u, 1u, 0x8001u, 0xa5f0u, 0xffffu}) {
    scalar::store(factors, scalar::keep_factors(static_cast<std::uint16_t>(bits), 1.25f));
    for (int i = 0; i < 16; ++i) ASSERT_EQ(factors[i], (bits >> i & 1u) != 0 ? 1.25f : 0.0f);
  }
}

}  // namespace
}  // namespace gantry::kernels
