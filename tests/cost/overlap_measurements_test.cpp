#include "gantry/cost/overlap_measurements.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "gantry/base/check.h"
#include "gantry/base/env.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {
namespace {

Profile links() {
  Profile profile;
  profile.name = "test";
  profile.collectives = {{.per_node = 2, .nodes = 1, .link = {.gb_per_s = 2, .latency_s = 0.001}},
                         {.per_node = 4, .nodes = 1, .link = {.gb_per_s = 4, .latency_s = 0.002}}};
  profile.copy_in = {.gb_per_s = 8, .latency_s = 0.0001};
  profile.copy_out = {.gb_per_s = 16, .latency_s = 0.0002};
  return profile;
}

struct RowText {
  int n = 0, gather = 0, in = 0, out = 0;
  std::string latency = "10 ms";
  std::string deviation = "0.01";
  int per_node = 2;
};

std::string row(const RowText& r) {
  return fmt::format(
      R"({{"compute_n": "{}", "gpu_to_gpu_mbytes": "{}", "cpu_to_gpu_mbytes": "{}", "gpu_to_cpu_mbytes": "{}",
          "latency": "{}", "std/mean": "{}", "world_size": "8", "intra_group_size": "{}", "inter_group_size": "1"}})",
      r.n, r.gather, r.in, r.out, r.latency, r.deviation, r.per_node);
}

std::string campaign(const std::vector<RowText>& rows) {
  std::string text = R"({"machine": {)";
  for (std::size_t i = 0; i < rows.size(); ++i)
    text += fmt::format("{}\"{:03}\": {}", i == 0 ? "" : ", ", i, row(rows[i]));
  return text + "}}";
}

OverlapMeasurements parse(const std::string& text) { return parse_overlap_measurements(text, "file", links()); }

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(OverlapMeasurements, StandAloneTimesComeFromTheLinksAndTheProductAlone) {
  const auto result =
      parse(campaign({{.n = 4096, .latency = "7.5 ms"}, {.n = 4096, .gather = 512, .in = 1024, .out = 256}}));
  EXPECT_EQ(result.machine, "machine");
  EXPECT_EQ(result.rows, 2);
  EXPECT_EQ(result.single, 1);
  ASSERT_EQ(result.samples.size(), 1u);
  const auto& sample = result.samples[0];
  EXPECT_DOUBLE_EQ(sample.alone_s[0], 0.0075);
  EXPECT_DOUBLE_EQ(sample.alone_s[1], 0.5 / 2 * 0.5 + 0.001);
  EXPECT_DOUBLE_EQ(sample.alone_s[2], 1.0 / 8 + 0.0001);
  EXPECT_DOUBLE_EQ(sample.alone_s[3], 0.25 / 16 + 0.0002);
  EXPECT_DOUBLE_EQ(sample.together_s, 0.010);
  EXPECT_EQ(sample.per_node, 2);
  EXPECT_EQ(sample.nodes, 1);
}

TEST(OverlapMeasurements, AnotherShapesProductStandsIn) {
  const auto result = parse(campaign({{.n = 64, .latency = "1 ms", .per_node = 2},
                                      {.n = 64, .latency = "2 ms", .per_node = 4},
                                      {.n = 64, .in = 10, .per_node = 4},
                                      {.n = 64, .in = 10, .per_node = 8},
                                      {.n = 65, .in = 10, .per_node = 8}}));
  EXPECT_EQ(result.stand_ins, 1);
  EXPECT_EQ(result.without_compute, 1);
  ASSERT_EQ(result.samples.size(), 2u);
  EXPECT_DOUBLE_EQ(result.samples[0].alone_s[0], 0.002);
  EXPECT_DOUBLE_EQ(result.samples[1].alone_s[0], 0.0015);
}

TEST(OverlapMeasurements, NoisyRowsAreLeftOutAlsoAsProducts) {
  const auto result = parse(campaign({{.n = 64, .latency = "1 ms", .deviation = "0.2"},
                                      {.n = 64, .in = 10},
                                      {.in = 10, .out = 10, .deviation = "0.11"},
                                      {.in = 10, .out = 10, .deviation = "0.1"}}));
  EXPECT_EQ(result.noisy, 1);
  EXPECT_EQ(result.without_compute, 1);
  EXPECT_EQ(result.single, 1);
  EXPECT_EQ(result.samples.size(), 1u);
}

TEST(OverlapMeasurements, BadFieldsAreNamed) {
  const auto with = [](const std::string& from, const std::string& to) {
    std::string text = campaign({{.in = 10, .out = 20}});
    text.replace(text.find(from), from.size(), to);
    return error_of(text);
  };
  EXPECT_EQ(with("\"10 ms\"", "\"10 s\""),
            "file: row '000': 'latency' should be a number of 1e-06 to 1000000000 followed by \" ms\", found \"10 s\"");
  EXPECT_NE(with("\"10 ms\"", "\"nan ms\"").find("'latency' should be a number"), std::string::npos);
  EXPECT_NE(with("\"10 ms\"", "\"0 ms\"").find("'latency' should be a number"), std::string::npos);
  EXPECT_NE(with("\"0.01\"", "\"inf\"").find("'std/mean' should be a number"), std::string::npos);
  EXPECT_NE(with("\"0\"", "\"-1\"").find("'compute_n' should be a number of 0 to"), std::string::npos);
  EXPECT_NE(with("\"0\"", "0").find("'compute_n' has the wrong type"), std::string::npos);
  EXPECT_EQ(with("\"world_size\"", "\"world\""), "file: row '000': 'world_size' is missing");
  EXPECT_EQ(with("\"8\"", "\"1\""), "file: row '000': a group of 1 nodes x 2 devices does not fit into 'world_size' 1");
  EXPECT_EQ(with("\"8\"", "\"8.5\""), "file: row '000': 'world_size' should be a whole number, found 8.5");
}

TEST(OverlapMeasurements, OtherDocumentsAreRefused) {
  for (const char* text : {"[]", "{}", "3", R"({"a": 1})", R"({"a": {}, "b": {}})"}) {
    EXPECT_NE(error_of(text).find("expected an object with one machine"), std::string::npos) << text;
  }
  EXPECT_NE(error_of(R"({"a": {"row": []}})").find("row 'row': expected an object holding 'compute_n'"),
            std::string::npos);
  EXPECT_NE(error_of("{").find("file"), std::string::npos);
}

TEST(OverlapMeasurements, LinksThatAreMissingAreNamed) {
  Profile profile = links();
  profile.copy_out = {};
  try {
    parse_overlap_measurements("{}", "file", profile);
    FAIL();
  } catch (const base::InputError& error) {
    EXPECT_STREQ(error.what(), "Overlap measurements need the stand-alone link 'copy_out': profile test holds none");
  }
}

TEST(OverlapMeasurements, ReadsThePublishedCampaigns) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data || !std::filesystem::exists(*data / "mist-l4")) GTEST_SKIP() << "needs shared/data (GANTRY_DATA)";
  const auto l4 =
      read_overlap_measurements(*data / "mist-l4/overlap_measurements.json", load_profile("l4-mist-overlap"));
  EXPECT_EQ(l4.machine, "l4");
  EXPECT_EQ(l4.rows, 1004);
  EXPECT_EQ(l4.samples.size() - static_cast<std::size_t>(l4.stand_ins), 535u);
  const auto a100 = read_overlap_measurements(*data / "mist-a100/overlap_measurements.json", load_profile("a100-mist"));
  EXPECT_EQ(a100.rows, 3419);
  EXPECT_EQ(a100.samples.size() - static_cast<std::size_t>(a100.stand_ins), 2612u);
  EXPECT_EQ(a100.without_compute, 0);
}

}  // namespace
}  // namespace gantry::cost
