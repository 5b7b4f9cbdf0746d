#include "gantry/text/dataset_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::text {
namespace {

std::vector<std::uint64_t> order(std::uint64_t size, std::uint64_t key) {
  const Permutation permutation(size, key);
  std::vector<std::uint64_t> values(size);
  for (std::uint64_t i = 0; i < size; ++i) values[i] = permutation(i);
  return values;
}

TEST(Permutation, VisitsEveryElementOnce) {
  std::vector<std::uint64_t> sizes(70);
  std::iota(sizes.begin(), sizes.end(), 1);
  for (const std::uint64_t size : {127, 128, 129, 1000, 4096, 4097, 65537}) sizes.push_back(size);
  for (const std::uint64_t size : sizes) {
    auto values = order(size, size * 31);
    std::sort(values.begin(), values.end());
    for (std::uint64_t i = 0; i < size; ++i) ASSERT_EQ(values[i], i) << size;
  }
}

TEST(Permutation, DependsOnTheKey) {
  EXPECT_EQ(order(1000, 5), order(1000, 5));
  EXPECT_NE(order(1000, 5), order(1000, 6));
}

TEST(Permutation, LooksShuffled) {
  constexpr std::uint64_t kSize = 10000;
  const auto values = order(kSize, 1);
  // A random permutation has 1 fixed point and no correlation of place and value (standard deviation 0.01 here).
  double product = 0;
  int fixed = 0;
  for (std::uint64_t i = 0; i < kSize; ++i) {
    fixed += values[i] == i ? 1 : 0;
    product += (static_cast<double>(i) - kSize / 2.0) * (static_cast<double>(values[i]) - kSize / 2.0);
  }
  EXPECT_LT(fixed, 8);
  EXPECT_LT(std::abs(product / (kSize * static_cast<double>(kSize) * kSize / 12.0)), 0.05);
}

TEST(Permutation, SmallSizesTakeManyOrders) {
  std::vector<int> first(5, 0);
  for (std::uint64_t key = 0; key < 1000; ++key) ++first[order(5, key)[0]];
  for (const int count : first) EXPECT_NEAR(count, 200, 60);  // 4.7 standard deviations
}

TEST(Permutation, HugeSizesNeedNoMemory) {
  const Permutation permutation(std::uint64_t{1} << 62, 3);
  EXPECT_NE(permutation(0), permutation(1));
  EXPECT_LT(permutation((std::uint64_t{1} << 62) - 1), std::uint64_t{1} << 62);
}

TEST(Permutation, RefusesWhatIsOutside) {
  EXPECT_THROW(Permutation(0, 1), base::InputError);
  EXPECT_THROW(Permutation(3, 1)(3), base::InputError);
}

}  // namespace
}  // namespace gantry::text
