#include "gantry/base/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>

namespace gantry::base {
namespace {

TEST(InterruptDeathTest, FirstSignalAsksAndSecondEnds) {
  // In a child process: the handlers would otherwise stay with the other tests.
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        ::raise(SIGINT);
        if (!interrupted()) ::_exit(1);
        ::raise(SIGINT);
        ::_exit(2);
      },
      ::testing::ExitedWithCode(128 + SIGINT), "");
}

TEST(InterruptDeathTest, TerminationIsTheSameRequest) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        ::raise(SIGTERM);
        ::_exit(interrupted() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(Interrupt, CanBeSetAndCleared) {
  EXPECT_FALSE(interrupted());
  set_interrupted(true);
  EXPECT_TRUE(interrupted());
  set_interrupted(false);
  EXPECT_FALSE(interrupted());
}

}  // namespace
}  // namespace gantry::base
