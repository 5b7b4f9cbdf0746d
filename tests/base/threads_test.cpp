#include "gantry/base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::message_of;
using testing::ScopedEnv;

class ThreadCount : public ::testing::TestWithParam<const char*> {};

TEST_P(ThreadCount, RangesCoverEverythingOnce) {
  const ScopedEnv set("GANTRY_THREADS", GetParam());
  for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
    for (const std::int64_t grain : {-1, 1, 3, 1000, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      parallel_ranges(count, grain, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (const auto& visit : visits) ASSERT_EQ(visit, 1) << count << " by " << grain;
    }
  }
}

TEST_P(ThreadCount, OneExceptionComesOutAndWorkStops) {
  const ScopedEnv set("GANTRY_THREADS", GetParam());
  std::atomic<int> calls{0};
  const auto what = message_of<std::runtime_error>([&] {
    parallel_ranges(1'000'000, 1, [&](std::int64_t, std::int64_t) {
      ++calls;
      throw std::runtime_error("piece failed");
    });
  });
  EXPECT_EQ(what, "piece failed");
  EXPECT_LE(calls, 4);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadCount, ::testing::Values("1", "2", "4"));

TEST(Threads, NestedCallsFinish) {
  const ScopedEnv set("GANTRY_THREADS", "3");
  std::atomic<std::int64_t> sum{0};
  parallel_ranges(8, 1, [&](std::int64_t, std::int64_t) {
    parallel_ranges(8, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  });
  EXPECT_EQ(sum, 64);
}

TEST(Threads, CountFollowsTheVariable) {
  {
    const ScopedEnv set("GANTRY_THREADS", "3");
    EXPECT_EQ(available_threads(), 3);
  }
  {
    const ScopedEnv set("GANTRY_THREADS", "0");
    EXPECT_EQ(available_threads(), 1);
  }
  {
    const ScopedEnv set("GANTRY_THREADS", "many");
    EXPECT_EQ(message_of<InputError>([] { available_threads(); }),
              "environment variable GANTRY_THREADS: expected an integer, got 'many'");
  }
  const ScopedEnv unset("GANTRY_THREADS", std::nullopt);
  EXPECT_GE(available_threads(), 1);
}

}  // namespace
}  // namespace gantry::base
