#include "gantry/base/bytes.h"

#include "tests/test_support.h"

namespace gantry::base {
namespace {

TEST(ParseBytes, TakesBinaryAndDecimalUnitsInEitherCase) {
  EXPECT_EQ(parse_bytes("3GiB", "x"), 3ull << 30);
  EXPECT_EQ(parse_bytes("1.5 gib", "x"), 3ull << 29);
  EXPECT_EQ(parse_bytes("800MB", "x"), 800'000'000ull);
  EXPECT_EQ(parse_bytes("2 KiB", "x"), 2048ull);
  EXPECT_EQ(parse_bytes("4096", "x"), 4096ull);
  EXPECT_EQ(parse_bytes("1e3b", "x"), 1000ull);
}

TEST(ParseBytes, NamesWhatIsWrong) {
  for (const char* text : {"", "GiB", "3 apples", "3GiBs", "0x10", "GiB3"}) {
    const std::string message = tests::input_error([&] { parse_bytes(text, "--memory-budget"); });
    EXPECT_NE(message.find("--memory-budget"), std::string::npos) << text;
    EXPECT_NE(message.find("3GiB or 800MB"), std::string::npos) << text << ": " << message;
  }
  for (const char* text : {"0", "-1GiB", "nan", "inf", "1e30", "0.1"}) {
    const std::string message = tests::input_error([&] { parse_bytes(text, "--memory-budget"); });
    EXPECT_NE(message.find("2^62"), std::string::npos) << text << ": " << message;
  }
}

}  // namespace
}  // namespace gantry::base
