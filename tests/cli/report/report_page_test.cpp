#include "gantry/cli/report/report_page.h"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <string>

#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/cli/report/page.h"

namespace gantry::cli::report {
namespace {

std::string run_text(int steps, const std::string& model = "tiny", const std::string& options = R"({"lr":0.1})") {
  std::string text = R"({"event":"start","time":"2026-01-02T03:04:05Z","model":)" + base::Json(model).dump() +
                     R"(,"parameters":134515008,"machine":{"cpu":"EPYC","threads":2,"memory_bytes":8589934592},)" +
                     R"("version":"0.1.0","options":)" + options + "}\n";
  text += R"({"event":"eval","step":0,"split":"validation","loss":3.0,"tokens":1000})"
          "\n";
  for (int step = 1; step <= steps; ++step) {
    text += fmt::format(
        R"({{"event":"step","step":{},"loss":{},"learning_rate":1e-4,"grad_norm":1.5,"tokens":1024,"tokens_per_s":{},"step_s":1,"memory_bytes":2e9,"time_s":{}}})",
        step, 3 - 0.001 * step + 0.1 * (step % 7), 900 + step % 5, step);
    text += "\n";
  }
  return text + fmt::format(R"({{"event":"eval","step":{},"split":"validation","loss":2.0,"tokens":1000}})", steps) +
         "\n" +
         R"({"event":"end","step":1,"reason":"done"})"
         "\n";
}

RunRecords run_of(const std::string& name, const std::string& text) {
  RunRecords run = parse_records(text, name);
  run.name = name;
  return run;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Every element that must be closed is closed in order.
void expect_balanced(const std::string& html) {
  const std::regex tag(R"(<(/?)([a-z0-9]+)[^>]*?(/?)>)");
  std::vector<std::string> open;
  std::string body = std::regex_replace(html, std::regex(R"(<style>[^]*?</style>|<script[^]*?</script>)"), "");
  for (std::sregex_iterator at(body.begin(), body.end(), tag), end; at != end; ++at) {
    const std::string name = (*at)[2];
    if (name == "meta" || (*at)[3] == "/") continue;
    if ((*at)[1] != "/") {
      open.push_back(name);
    } else {
      ASSERT_FALSE(open.empty()) << name;
      ASSERT_EQ(open.back(), name) << "at " << at->position();
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty()) << open.back();
}

TEST(Page, OfOneRunShowsSummaryPlotsEvaluationAndOptions) {
  const std::string html = page_html(std::vector{run_of("demo", run_text(100, "some/where/tiny.gguf"))});
  expect_balanced(html);
  EXPECT_TRUE(has(html, "<h1>demo</h1>"));
  EXPECT_TRUE(has(html, "<dd>tiny.gguf</dd>"));
  EXPECT_TRUE(has(html, "<dd>some/where/tiny.gguf</dd>"));
  EXPECT_TRUE(has(html, "134.5 M"));
  EXPECT_TRUE(has(html, "EPYC, 2 threads, 8.0 GiB"));
  EXPECT_TRUE(has(html, "20.09 → 7.389"));
  EXPECT_TRUE(has(html, "1m40s"));
  EXPECT_EQ(count(html, "<figure"), 5U);
  for (const char* title : {"Loss", "Throughput", "Memory", "Learning rate", "Gradient norm"}) {
    EXPECT_TRUE(has(html, fmt::format("<h2>{}</h2>", title))) << title;
  }
  EXPECT_TRUE(has(html, "<h2>Evaluation</h2>"));
  EXPECT_TRUE(has(html, "<th>lr</th><td>0.1</td>"));
  EXPECT_FALSE(has(html, "{{"));
}

TEST(Page, AsksNothingOfTheNetwork) {
  const std::string html = page_html(std::vector{run_of("demo", run_text(40))});
  const std::regex outside(
      R"((src|href|url)\s*[=(]|@import|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg))");
  std::smatch found;
  EXPECT_FALSE(std::regex_search(html, found, outside)) << found.str();
  EXPECT_TRUE(has(html, "default-src 'none'"));
}

TEST(Page, EscapesEverythingThatFilesSay) {
  const std::string evil = "</script><img src=x onerror=alert(1)>{{script}}";
  std::string text = run_text(40, evil, base::Json{{evil, evil}}.dump());
  text += base::Json{{"event", "eval"}, {"step", 40}, {"split", evil}, {"loss", 1.0}}.dump() + "\n";
  text += base::Json{{"event", "end"}, {"reason", evil}}.dump() + "\n";
  for (const auto& runs :
       {std::vector{run_of(evil, text)}, std::vector{run_of(evil, text), run_of("b", run_text(3))}}) {
    const std::string html = page_html(runs);
    EXPECT_FALSE(has(html, "<img"));
    EXPECT_EQ(count(html, "</script>"), count(html, "<script"));
    EXPECT_EQ(count(html, "\"use strict\""), 1U);
    EXPECT_TRUE(has(html, "&lt;img src=x"));
    expect_balanced(html);
  }
}

TEST(Page, OverlaysRunsAndPutsDifferingOptionsFirst) {
  const std::vector runs{run_of("first", run_text(100, "m", R"({"aa":1,"lr":0.1})")),
                         run_of("second", run_text(50, "m", R"({"aa":1,"lr":0.2,"extra":true})"))};
  const std::string html = page_html(runs);
  expect_balanced(html);
  EXPECT_TRUE(has(html, "<h1>2 runs compared</h1>"));
  EXPECT_TRUE(has(html, "line c0"));
  EXPECT_TRUE(has(html, "line c1"));
  EXPECT_EQ(count(html, "<tr class=\"differs\">"), 2U);
  EXPECT_LT(html.find("<th>lr</th>"), html.find("<th>aa</th>"));
  EXPECT_TRUE(has(html, "<th>extra</th><td>–</td><td>yes</td>"));
}

TEST(Page, LeavesOutPlotsWithoutNumbers) {
  const std::string html = page_html(std::vector{run_of("a", R"({"event":"step","step":1,"loss":2})"
                                                             "\n")});
  EXPECT_EQ(count(html, "<figure"), 1U);
  const std::string empty = page_html(std::vector{run_of("a", R"({"event":"start"})"
                                                              "\n")});
  EXPECT_EQ(count(empty, "<figure"), 0U);
  EXPECT_TRUE(has(empty, "no step yet"));
  expect_balanced(empty);
}

TEST(Page, ShowsLossesThatAreNotFinite) {
  std::string text = run_text(100);
  text += R"({"event":"step","step":101,"loss":null})"
          "\n";
  const std::string html = page_html(std::vector{run_of("a", text)});
  EXPECT_TRUE(has(html, "class=\"diverged\""));
  EXPECT_TRUE(has(html, "1 step has a loss that is not a finite number, first at step 101."));
}

TEST(Page, CutsOffASpikeThatWouldFlattenTheLoss) {
  const std::string spike = R"({"event":"step","step":301,"loss":5000})"
                            "\n";
  const std::string html = page_html(std::vector{run_of("a", run_text(300) + spike)});
  EXPECT_TRUE(has(html, "▲ single steps above the axis, up to 5,000"));
  EXPECT_EQ(count(html, "class=\"above c0\""), 2U);  // one in the wide drawing, one in the narrow
}

TEST(Page, StaysSmallForLongRuns) {
  const std::string html = page_html(std::vector{run_of("a", run_text(60'000))});
  EXPECT_LT(html.size(), 600'000U);
}

TEST(Page, HoverDataIsJson) {
  const std::string html = page_html(std::vector{run_of("<&>", run_text(100))});
  const std::string open = R"(<script type="application/json">)";
  const auto begin = html.find(open) + open.size();
  const auto data = base::parse_json(html.substr(begin, html.find("</script>", begin) - begin), "hover");
  ASSERT_EQ(data.size(), 3U);
  EXPECT_EQ(data[0]["name"], "each step");
  EXPECT_EQ(data[0]["x"].size(), 100U);
  EXPECT_EQ(data[2]["class"], "c1");
}

TEST(FillTemplate, DoesNotSearchWhatItPutIn) {
  const auto value = [](std::string_view name) { return name == "a" ? std::string("{{b}}") : std::string("B"); };
  EXPECT_EQ(fill_template("1{{a}}2{{b}}3{{open", value), "1{{b}}2B3{{open");
}

TEST(WriteReport, WritesThePageOrKeepsTheOldOne) {
  const auto root = std::filesystem::path(testing::TempDir()) / "report_page_test";
  std::filesystem::create_directories(root / "run");
  std::ofstream(root / "run" / "metrics.jsonl") << run_text(20);
  const auto page = root / "deep" / "er" / "report.html";
  write_report({root / "run"}, page);
  EXPECT_TRUE(has(base::read_text_file(page), "<!doctype html>"));
  std::ofstream(root / "run" / "metrics.jsonl") << run_text(1) << "{broken\n"
                                                << run_text(1).substr(run_text(1).find('\n') + 1);
  EXPECT_THROW(write_report({root / "run"}, page), base::InputError);
  EXPECT_TRUE(has(base::read_text_file(page), "<!doctype html>"));
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace gantry::cli::report
