#include "gantry/base/auto_count.h"

#include "gantry/base/options.h"
#include "tests/test_support.h"

namespace gantry::base {
namespace {

struct Sizes {
  AutoCount rows = 4;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("rows", rows, "rows, or auto");
  }
};

AutoCount read(const char* json) {
  Sizes sizes;
  options_from_json(sizes, parse_json(json, "F"), "F");
  return sizes.rows;
}

TEST(AutoCount, IsANumberOrAutoInWords) {
  EXPECT_EQ(AutoCount::parse("12", "--rows").count(), 12);
  EXPECT_EQ(AutoCount::parse("-1", "--rows").count(), -1);
  EXPECT_TRUE(AutoCount::parse("auto", "--rows").is_auto());
  for (const char* text : {"", "Auto", "4x", "1.5", " 4", "99999999999999999999"}) {
    const std::string message = tests::input_error([&] { AutoCount::parse(text, "--rows"); });
    EXPECT_MENTIONS(message, "--rows");
    EXPECT_MENTIONS(message, "'auto'");
  }
  EXPECT_MENTIONS(tests::input_error([] { static_cast<void>(AutoCount::automatic().count()); }), "auto");
}

TEST(AutoCount, IsANumberOrAutoInJson) {
  EXPECT_EQ(read(R"({"rows": 7})"), AutoCount(7));
  EXPECT_EQ(read(R"({"rows": "auto"})"), AutoCount::automatic());
  EXPECT_EQ(read("{}"), AutoCount(4));
  for (const char* json : {R"({"rows": "7"})", R"({"rows": 1.5})", R"({"rows": true})", R"({"rows": null})"}) {
    EXPECT_MENTIONS(tests::input_error([&] { read(json); }), "rows");
  }
  Sizes sizes;
  EXPECT_EQ(options_to_json(sizes).dump(), R"({"rows":4})");
  sizes.rows = AutoCount::automatic();
  EXPECT_EQ(options_to_json(sizes).dump(), R"({"rows":"auto"})");
}

}  // namespace
}  // namespace gantry::base
