#include "gantry/base/env.h"

#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::message_of;
using testing::ScopedEnv;

TEST(Env, UnsetAndEmptyAreBothNothing) {
  const ScopedEnv unset("GANTRY_TEST_VARIABLE", std::nullopt);
  EXPECT_FALSE(env("GANTRY_TEST_VARIABLE").has_value());
  const ScopedEnv empty("GANTRY_TEST_VARIABLE", "");
  EXPECT_FALSE(env("GANTRY_TEST_VARIABLE").has_value());
  const ScopedEnv set("GANTRY_TEST_VARIABLE", "x y");
  EXPECT_EQ(env("GANTRY_TEST_VARIABLE"), "x y");
}

TEST(Env, IntegersAreParsedWhole) {
  {
    const ScopedEnv set("GANTRY_TEST_VARIABLE", "-12");
    EXPECT_EQ(env_int("GANTRY_TEST_VARIABLE"), -12);
  }
  for (const char* bad : {"12x", "1.5", " 3", "two", "99999999999999999999"}) {
    const ScopedEnv set("GANTRY_TEST_VARIABLE", bad);
    EXPECT_EQ(message_of<InputError>([] { env_int("GANTRY_TEST_VARIABLE"); }),
              std::string("environment variable GANTRY_TEST_VARIABLE: expected an integer, got '") + bad + "'");
  }
}

TEST(Env, DataFolderFollowsTheVariableAndMustExist) {
  const testing::TemporaryFolder folder;
  {
    const ScopedEnv set("GANTRY_DATA", folder.path().string());
    EXPECT_EQ(data_dir("/nowhere"), folder.path());
  }
  {
    const ScopedEnv set("GANTRY_DATA", (folder / "missing").string());
    EXPECT_FALSE(data_dir("/nowhere").has_value());
  }
  const ScopedEnv unset("GANTRY_DATA", std::nullopt);
  std::filesystem::create_directories(folder / "shared/data");
  std::filesystem::create_directories(folder / "source");
  EXPECT_TRUE(data_dir(folder / "source").has_value());
}

}  // namespace
}  // namespace gantry::base
