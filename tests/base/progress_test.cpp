#include "gantry/base/progress.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <cmath>

#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::contains;

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(0.04), "0.0s");
  EXPECT_EQ(format_duration(9.44), "9.4s");
  EXPECT_EQ(format_duration(45.2), "45s");
  EXPECT_EQ(format_duration(59.7), "1m00s");
  EXPECT_EQ(format_duration(200), "3m20s");
  EXPECT_EQ(format_duration(3725), "1h02m");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(1e300), "?");
  EXPECT_EQ(format_duration(std::nan("")), "?");
}

TEST(Format, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(3ull << 29), "1.5 GiB");
  EXPECT_EQ(format_bytes(std::uint64_t{1} << 60), "1048576.0 TiB");
}

TEST(Progress, WritesPlainLinesIntoALog) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress("training", 10, "steps");
    for (int step = 1; step <= 9; ++step) progress.update(step);
    progress.update(10, "loss 2.31");
  }
  const auto text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("training 100% 10/10 steps, "), text.rfind("training")) << "exactly one line expected: " << text;
  EXPECT_TRUE(contains(text, ", took "));
  EXPECT_TRUE(contains(text, " | loss 2.31\n"));
  EXPECT_FALSE(contains(text, "\033")) << "no control characters in a log";
}

TEST(Progress, UnknownTotalAndNoUpdate) {
  ::testing::internal::CaptureStderr();
  {
    Progress silent("loading", 5, "files");
    Progress open("reading", 0, "lines");
    open.update(7);
  }
  const auto text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(contains(text, "reading 7 lines"));
  EXPECT_FALSE(contains(text, "loading"));
}

TEST(Progress, DrawsABarOnATerminal) {
  int leader = -1;
  int follower = -1;
  if (::openpty(&leader, &follower, nullptr, nullptr, nullptr) != 0) GTEST_SKIP() << "no pseudo-terminal here";
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(follower, STDERR_FILENO);
  {
    Progress progress("training", 4, "steps");
    progress.update(4, "done");
  }
  ::dup2(saved, STDERR_FILENO);
  std::string text;
  pollfd ready{leader, POLLIN, 0};
  while (!contains(text, "\n") && ::poll(&ready, 1, 5000) == 1) {  // a terminal hands its text over in pieces
    char buffer[4096];
    const ssize_t count = ::read(leader, buffer, sizeof(buffer));
    if (count <= 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  for (const int descriptor : {saved, leader, follower}) ::close(descriptor);
  EXPECT_TRUE(contains(text, "\r\033[2Ktraining [████████████████████████] 100% 4/4 steps")) << text;
  EXPECT_TRUE(text.ends_with("\n")) << text;
}

}  // namespace
}  // namespace gantry::base
