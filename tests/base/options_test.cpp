#include "gantry/base/options.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::message_of;

struct SampleOptions {
  bool fast = false;
  std::int64_t steps = 10;
  double rate = 0.5;
  std::string name = "run";
  std::optional<int> limit;
  std::vector<std::string> files;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Sample");
    visit("fast", fast, "skips checks");
    visit("steps", steps, "number of steps");
    visit("rate", rate, "learning rate");
    visit("name", name, "name of the run");
    visit("limit", limit, "most items");
    visit("files", files, "input files");
  }
};

TEST(Options, RoundTripThroughJson) {
  SampleOptions options;
  options.fast = true;
  options.steps = 1LL << 40;
  options.rate = 0.1;
  options.name = "ä \"quoted\"";
  options.limit = 3;
  options.files = {"a", "b"};
  SampleOptions read;
  options_from_json(read, Json::parse(options_to_json(options).dump()), "c.json");
  EXPECT_EQ(read.fast, options.fast);
  EXPECT_EQ(read.steps, options.steps);
  EXPECT_EQ(read.rate, options.rate);
  EXPECT_EQ(read.name, options.name);
  EXPECT_EQ(read.limit, options.limit);
  EXPECT_EQ(read.files, options.files);
}

TEST(Options, AbsentFieldsKeepTheirDefaultsAndOrderIsKept) {
  SampleOptions options;
  options_from_json(options, Json::object(), "c.json");
  EXPECT_EQ(options.steps, 10);
  EXPECT_FALSE(options.limit.has_value());
  EXPECT_EQ(options_to_json(options).dump(), R"({"fast":false,"steps":10,"rate":0.5,"name":"run","files":[]})");
}

TEST(Options, UnknownNamesAndWrongTypesNameTheSource) {
  SampleOptions options;
  const auto read = [&](const char* text) {
    return message_of<InputError>([&] { options_from_json(options, parse_json(text, "c.json"), "c.json"); });
  };
  EXPECT_EQ(read(R"({"stepz": 3})"), "c.json: unknown option 'stepz'");
  EXPECT_EQ(read(R"({"steps": "3"})"), "c.json: 'steps' has the wrong type or range (string)");
  EXPECT_EQ(read(R"({"steps": 3.5})"), "c.json: 'steps' has the wrong type or range (number)");
  EXPECT_EQ(read(R"({"limit": 3000000000})"), "c.json: 'limit' has the wrong type or range (number)");
  EXPECT_EQ(read(R"([1])"), "c.json: expected an object of options, found array");
}

}  // namespace
}  // namespace gantry::base
