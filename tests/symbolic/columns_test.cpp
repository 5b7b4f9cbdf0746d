#include <gtest/gtest.h>

#include "gantry/symbolic/program.h"

namespace gantry::symbolic {
namespace {

TEST(Columns, StartAtZeroAndKeepTheirNames) {
  Columns columns(3);
  columns.column("b")[1] = 4;
  columns.column("s")[2] = 5;
  ASSERT_NE(columns.find("b"), nullptr);
  EXPECT_EQ(columns.find("b")[0], 0);
  EXPECT_EQ(columns.column("b")[1], 4) << "asking again returns the same column";
  EXPECT_EQ(columns.find("s")[2], 5);
  EXPECT_EQ(columns.find("tp"), nullptr);
}

}  // namespace
}  // namespace gantry::symbolic
