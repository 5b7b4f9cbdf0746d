#include "gantry/base/log.h"

#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::contains;
using testing::message_of;

TEST(Log, LevelFiltersAndStdoutStaysClean) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  set_log_level("warn");
  log_info("quiet {}", 1);
  log_warn("loud {}", 2);
  set_log_level("debug");
  log_debug("detail {}", 3);
  set_log_level("off");
  log_error("never");
  set_log_level("info");
  const auto err = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_FALSE(contains(err, "quiet"));
  EXPECT_TRUE(contains(err, "loud 2"));
  EXPECT_TRUE(contains(err, "detail 3"));
  EXPECT_FALSE(contains(err, "never"));
}

TEST(Log, UnknownLevelIsRefused) {
  EXPECT_EQ(message_of<InputError>([] { set_log_level("chatty"); }),
            "log level: expected trace, debug, info, warn, error or off, got 'chatty'");
}

}  // namespace
}  // namespace gantry::base
