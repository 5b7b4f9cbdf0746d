// Templates against what Jinja2 made of them (tools/make_chat_goldens.py).
#include <gtest/gtest.h>

#include <fstream>

#include "gantry/base/file.h"
#include "gantry/text/jinja_template.h"

namespace gantry::text::jinja {
namespace {

/// The moment at which the goldens were made.
std::tm golden_time() {
  std::tm time{};
  time.tm_sec = 2;
  time.tm_min = 5;
  time.tm_hour = 7;
  time.tm_mday = 9;
  time.tm_mon = 2;
  time.tm_year = 125;
  time.tm_yday = 67;
  return time;
}

std::vector<base::OrderedJson> read_cases(const std::string& name) {
  std::ifstream file(std::string(GANTRY_SOURCE_DIR) + "/tests/data/text/" + name);
  std::vector<base::OrderedJson> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(base::OrderedJson::parse(line));
  return rows;
}

void expect_as_jinja2(const base::OrderedJson& row) {
  const std::string source = row["template"].get<std::string>();
  SCOPED_TRACE(row.value("family", "") + " " + source);
  if (row.contains("error")) {
    EXPECT_THROW(Template(source).render(row["variables"], golden_time()), base::InputError);
    return;
  }
  try {
    const Rendered rendered = Template(source).render(row["variables"], golden_time());
    EXPECT_EQ(rendered.text, row["text"].get<std::string>());
    base::OrderedJson ranges = base::OrderedJson::array();
    for (const auto& [begin, end] : rendered.generation) ranges.push_back({begin, end});
    EXPECT_EQ(ranges, row.value("generation", base::OrderedJson::array()));
  } catch (const base::Error& error) {
    ADD_FAILURE() << error.what();
  }
}

TEST(JinjaGolden, EveryConstructRendersAsJinja2Does) {
  const auto rows = read_cases("jinja_cases.jsonl");
  ASSERT_GE(rows.size(), 110u);
  for (const auto& row : rows) expect_as_jinja2(row);
}

TEST(JinjaGolden, TemplatesInTheMannerOfEachFamilyRenderAsJinja2Does) {
  const auto rows = read_cases("chat_cases.jsonl");
  ASSERT_GE(rows.size(), 90u);
  for (const auto& row : rows) expect_as_jinja2(row);
}

}  // namespace
}  // namespace gantry::text::jinja
