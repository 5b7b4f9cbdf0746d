#include "gantry/base/isa.h"

#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::message_of;
using testing::ScopedEnv;

class IsaTest : public ::testing::Test {
 protected:
  void SetUp() override { reset_isa_for_testing(); }
  void TearDown() override { reset_isa_for_testing(); }
};

TEST_F(IsaTest, DefaultsToTheBest) {
  const ScopedEnv unset("GANTRY_ISA", std::nullopt);
  EXPECT_EQ(isa(), best_isa());
}

TEST_F(IsaTest, OverrideLowersAndIsLatched) {
  {
    const ScopedEnv set("GANTRY_ISA", "scalar");
    EXPECT_EQ(isa(), Isa::kScalar);
  }
  const ScopedEnv unset("GANTRY_ISA", std::nullopt);
  EXPECT_EQ(isa(), Isa::kScalar);
  reset_isa_for_testing();
  EXPECT_EQ(isa(), best_isa());
}

TEST_F(IsaTest, EveryNameUpToTheBestIsAccepted) {
  for (const Isa wanted : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    const ScopedEnv set("GANTRY_ISA", std::string(isa_name(wanted)));
    reset_isa_for_testing();
    if (wanted <= best_isa()) {
      EXPECT_EQ(isa(), wanted);
    } else {
      EXPECT_EQ(message_of<InputError>([] { isa(); }), "GANTRY_ISA=" + std::string(isa_name(wanted)) +
                                                           ": this processor supports " +
                                                           std::string(isa_name(best_isa())) + " at most");
    }
  }
}

TEST_F(IsaTest, UnknownOverrideFailsLoudlyEveryTime) {
  const ScopedEnv set("GANTRY_ISA", "sse9");
  for (int attempt = 0; attempt < 2; ++attempt) {
    EXPECT_EQ(message_of<InputError>([] { isa(); }),
              "GANTRY_ISA: expected scalar, avx2, avx512, avx512_bf16 or amx, got 'sse9'");
  }
}

}  // namespace
}  // namespace gantry::base
