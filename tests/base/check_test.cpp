#include "gantry/base/check.h"

#include <gtest/gtest.h>

namespace gantry::base {
namespace {

TEST(Check, PutsValuesIntoTheMessage) {
  try {
    const int got = 3;
    GANTRY_CHECK(got == 4, "shape: expected {}, got {}", 4, got);
    FAIL() << "expected an InputError";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "shape: expected 4, got 3");
  }
}

TEST(Check, EvaluatesTheConditionOnceAndPassesSilently) {
  int evaluations = 0;
  GANTRY_CHECK(++evaluations == 1, "never shown");
  EXPECT_EQ(evaluations, 1);
}

TEST(Check, FailIsARuntimeErrorAndNotAnInputError) {
  EXPECT_THROW(fail("disk {}", "full"), Error);
  try {
    fail("disk {}", "full");
  } catch (const InputError&) {
    FAIL() << "fail() must not look like bad input";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "disk full");
  }
}

TEST(CheckDeathTest, UnreachableNamesThePlaceAndAborts) {
  EXPECT_DEATH(GANTRY_UNREACHABLE(), "internal error: unreachable at .*check_test.cpp");
}

TEST(CheckDeathTest, AssertIsOnInDebugBuildsOnly) {
  [[maybe_unused]] const bool truth = false;
#ifdef NDEBUG
  GANTRY_ASSERT(truth);
#else
  EXPECT_DEATH(GANTRY_ASSERT(truth), "internal error: truth at ");
#endif
}

}  // namespace
}  // namespace gantry::base
