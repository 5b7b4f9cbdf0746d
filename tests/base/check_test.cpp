#include <gtest/gtest.h>

#include "gantry/base/check.h"

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

}  // namespace
}  // namespace gantry::base
