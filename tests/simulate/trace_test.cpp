#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "gantry/base/json.h"
#include "gantry/simulate/pipeline.h"
#include "tests/simulate/sample_stages.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

Outcome sample(int count, int accumulation) {
  base::CounterRandom random(31);
  std::vector<cost::StagePhases> stages;
  for (int i = 0; i < count; ++i) stages.push_back(random_stage(random));
  return run(stages, Schedule::kOneFOneB, 1, accumulation);
}

TEST(Trace, HoldsEveryEventInMicroseconds) {
  const Outcome outcome = sample(3, 5);
  const base::Json trace = base::parse_json(trace_json(outcome), "trace");
  EXPECT_EQ(trace.at("otherData").at("iteration_s").get<double>(), outcome.iteration_s);
  std::set<std::string> names;
  std::size_t next = 0;
  for (const base::Json& item : trace.at("traceEvents")) {
    if (item.at("ph") == "M") {
      names.insert(item.at("args").value("name", ""));
      continue;
    }
    ASSERT_EQ(item.at("ph"), "X");
    ASSERT_LT(next, outcome.events.size());
    const Event& event = outcome.events[next++];
    EXPECT_EQ(item.at("pid"), event.stage);
    EXPECT_EQ(item.at("tid"), static_cast<int>(event.channel));
    EXPECT_EQ(item.at("name"), event.name);
    EXPECT_NEAR(item.at("ts").get<double>(), event.start_s * 1e6, 6e-4);
    EXPECT_NEAR(item.at("dur").get<double>(), (event.end_s - event.start_s) * 1e6, 1.1e-3);
    EXPECT_EQ(item.at("args").at("micro_batch"), event.micro_batch);
    EXPECT_EQ(item.at("args").at("layer"), event.layer);
  }
  EXPECT_EQ(next, outcome.events.size());
  for (const char* name : {"stage 0", "stage 2", "compute", "collective", "copy_in", "copy_out"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(Trace, NeighboursOfAThreadDoNotOverlapAfterRounding) {
  const Outcome outcome = sample(4, 9);
  const base::Json trace = base::parse_json(trace_json(outcome), "trace");
  std::map<std::pair<int, int>, std::int64_t> end_ns;
  for (const base::Json& item : trace.at("traceEvents")) {
    if (item.at("ph") != "X") continue;
    const auto start = std::llround(item.at("ts").get<double>() * 1e3);
    std::int64_t& end = end_ns[{item.at("pid").get<int>(), item.at("tid").get<int>()}];
    EXPECT_GE(start, end);
    end = start + std::llround(item.at("dur").get<double>() * 1e3);
  }
}

TEST(Trace, WithoutEventsIsValid) {
  SimulationOptions options;
  options.record = false;
  const Outcome outcome = run({plain_stage(1, 2)}, Schedule::kOneFOneB, 1, 2, options);
  EXPECT_EQ(base::parse_json(trace_json(outcome), "trace").at("traceEvents").size(), 6U);
  EXPECT_NE(timeline_svg(outcome, "empty").find("stage 0"), std::string::npos);
}

std::size_t count_of(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

TEST(Timeline, DrawsABlockAPassWithItsNumber) {
  const Outcome outcome = run(equal_stages(4, plain_stage(1, 2)), Schedule::kOneFOneB, 1, 8);
  const std::string svg = timeline_svg(outcome, "four stages");
  EXPECT_NE(svg.find("four stages: iteration 33.000 s"), std::string::npos);
  EXPECT_EQ(count_of(svg, R"(<rect class="f")"), 4U * 8 + 1);  // one in the legend
  EXPECT_EQ(count_of(svg, R"(<rect class="b")"), 4U * 8 + 1);
  EXPECT_EQ(count_of(svg, R"(<text class="n")"), 4U * 8 * 2);
  EXPECT_EQ(count_of(svg, "stage "), 4U);
  EXPECT_EQ(count_of(svg, "idle 27.3 %"), 4U);
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_EQ(svg.find("not drawn"), std::string::npos);
}

TEST(Timeline, ShowsTheSharesOfRecomputationAndOtherChannels) {
  const std::string svg = timeline_svg(sample(3, 4), "");
  for (const char* part : {"recomputation", "collectives", "copies in", "copies out", R"(<path class="i")"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
}

TEST(Timeline, StaysSmall) {
  const std::string long_one = timeline_svg(sample(8, 2048), "long");
  EXPECT_LT(long_one.size(), 600'000U);
  EXPECT_NE(long_one.find("not drawn"), std::string::npos);
  const std::string deep = timeline_svg(run(equal_stages(64, plain_stage(1, 2)), Schedule::kOneFOneB, 1, 256), "deep");
  EXPECT_LT(deep.size(), 1'000'000U);
}

TEST(Timeline, EscapesTheTitle) {
  const Outcome outcome = run({plain_stage(1, 2)}, Schedule::kOneFOneB, 1, 2);
  const std::string svg = timeline_svg(outcome, "<a&b\"\xff\n");
  EXPECT_NE(svg.find("&lt;a&amp;b&quot;\xef\xbf\xbd : iteration"), std::string::npos);
  EXPECT_EQ(svg.find('\xff'), std::string::npos);
}

}  // namespace
}  // namespace gantry::simulate
