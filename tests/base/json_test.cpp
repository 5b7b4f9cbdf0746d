#include "gantry/base/json.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::contains;
using testing::message_of;

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(Json, AcceptsTheStatedDepthAndNotOneMore) {
  EXPECT_NO_THROW(parse_json(nested(256), "deep.json"));
  EXPECT_EQ(message_of<InputError>([] { parse_json(nested(257), "deep.json"); }),
            "deep.json: JSON nested deeper than 256 levels");
  EXPECT_THROW(parse_json(std::string(2'000'000, '['), "deep.json"), InputError);
  std::string objects;
  for (int i = 0; i < 300'000; ++i) objects += R"({"a":)";
  EXPECT_THROW(parse_json(objects, "deep.json"), InputError);
}

TEST(Json, MalformedTextNamesTheSource) {
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "nul", "\"\xff\"", "1 2", "{\"a\" 1}", "1e999"}) {
    const auto what = message_of<InputError>([&] { parse_json(text, "some.json"); });
    EXPECT_EQ(what.rfind("some.json: not valid JSON: ", 0), 0u) << text << " gave: " << what;
  }
}

TEST(Json, ReadsFilesUpToTheLimit) {
  const testing::TemporaryFolder folder;
  testing::write_raw(folder / "a.json", R"({"a": 1})");
  EXPECT_EQ(read_json_file(folder / "a.json")["a"], 1);
  EXPECT_TRUE(contains(message_of<InputError>([&] { read_json_file(folder / "a.json", 4); }), "more than the 4"));
}

TEST(JsonGet, NamesMissingAndMistypedFields) {
  const Json json = parse_json(R"({"layers": 4, "name": "x", "null": null})", "c.json");
  EXPECT_EQ(json_get<int>(json, "layers", "c.json"), 4);
  EXPECT_EQ(json_get<std::string>(json, "name", "c.json"), "x");
  EXPECT_EQ(message_of<InputError>([&] { json_get<int>(json, "heads", "c.json"); }), "c.json: 'heads' is missing");
  EXPECT_EQ(message_of<InputError>([&] { json_get<int>(json, "name", "c.json"); }),
            "c.json: 'name' has the wrong type or range (string)");
  EXPECT_EQ(message_of<InputError>([&] { json_get<int>(Json::array(), "a", "c.json"); }),
            "c.json: expected an object holding 'a', found array");
}

TEST(JsonGet, IntegersMustBeWholeAndFit) {
  const Json json = parse_json(
      R"({"big": 4294967296, "negative": -1, "half": 1.5, "huge": 1e30, "true": true, "whole": 2.0,
          "max": 18446744073709551615})",
      "c.json");
  EXPECT_EQ(json_get<std::int64_t>(json, "big", "c"), 4294967296);
  EXPECT_EQ(json_get<std::uint64_t>(json, "max", "c"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(json_get<int>(json, "whole", "c"), 2);
  EXPECT_THROW(json_get<int>(json, "big", "c"), InputError);
  EXPECT_THROW(json_get<std::int64_t>(json, "max", "c"), InputError);
  EXPECT_THROW(json_get<std::uint64_t>(json, "negative", "c"), InputError);
  EXPECT_THROW(json_get<int>(json, "half", "c"), InputError);
  EXPECT_THROW(json_get<std::int64_t>(json, "huge", "c"), InputError);
  EXPECT_THROW(json_get<int>(json, "true", "c"), InputError);
  EXPECT_THROW(json_get<double>(json, "true", "c"), InputError);
  EXPECT_DOUBLE_EQ(json_get<double>(json, "negative", "c"), -1.0);
}

TEST(JsonGet, ListsAreCheckedElementByElement) {
  const Json json = parse_json(R"({"shape": [2, 3], "bad": [2, -3], "mixed": [1, "x"]})", "c.json");
  EXPECT_EQ(json_get<std::vector<std::uint64_t>>(json, "shape", "c"), (std::vector<std::uint64_t>{2, 3}));
  EXPECT_THROW(json_get<std::vector<std::uint64_t>>(json, "bad", "c"), InputError);
  EXPECT_THROW(json_get<std::vector<std::int64_t>>(json, "mixed", "c"), InputError);
}

TEST(JsonGet, DefaultsStandForMissingAndNullOnly) {
  const Json json = parse_json(R"({"null": null, "text": "x"})", "c.json");
  EXPECT_EQ(json_get_or(json, "missing", 7, "c"), 7);
  EXPECT_EQ(json_get_or(json, "null", 7, "c"), 7);
  EXPECT_THROW(json_get_or(json, "text", 7, "c"), InputError);
}

}  // namespace
}  // namespace gantry::base
