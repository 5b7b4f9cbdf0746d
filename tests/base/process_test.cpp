#include "gantry/base/process.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gantry::base {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

TEST(Process, PeakMemoryFollowsAnAllocationAndCanBeReset) {
  EXPECT_GT(resident_bytes(), 0u);
  const auto before = peak_resident_bytes();
  EXPECT_GE(before, resident_bytes() / 2);
  {
    std::vector<char> block(256 * kMiB, 1);
    EXPECT_GE(resident_bytes(), 256 * kMiB);
    EXPECT_EQ(block.back(), 1);
  }
  EXPECT_GE(peak_resident_bytes(), 256 * kMiB);
  if (!reset_peak_memory()) GTEST_SKIP() << "this system does not reset VmHWM";
  EXPECT_LT(peak_resident_bytes(), before + 200 * kMiB);
}

TEST(Process, DescribesTheMachine) {
  EXPECT_FALSE(cpu_name().empty());
  EXPECT_GT(total_memory_bytes(), 64 * kMiB);
  const auto time = utc_time();
  ASSERT_EQ(time.size(), 20u) << time;
  EXPECT_EQ(time[10], 'T');
  EXPECT_EQ(time.back(), 'Z');
}

}  // namespace
}  // namespace gantry::base
