#include "gantry/cli/report/format.h"

#include <gtest/gtest.h>

#include <cmath>

namespace gantry::cli::report {
namespace {

TEST(EscapeHtml, LeavesNothingThatStartsMarkup) {
  EXPECT_EQ(escape_html(R"(<a href="x" title='y'>&</a>)"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;&lt;/a&gt;");
}

TEST(EscapeHtml, KeepsUnicodeAndReplacesWhatIsNone) {
  EXPECT_EQ(escape_html("na\u00efve \u2192 \U0001F600"), "na\u00efve \u2192 \U0001F600");
  EXPECT_EQ(escape_html("a\xFF\xC0\xAFz"), "a\uFFFD\uFFFD\uFFFDz");
  EXPECT_EQ(escape_html("\xE2\x82"), "\uFFFD\uFFFD");
  EXPECT_EQ(escape_html(std::string_view("a\0b\nc", 5)), "a b c");
}

TEST(Format, WritesNumbersAsPeopleReadThem) {
  EXPECT_EQ(format_number(2.31), "2.310");
  EXPECT_EQ(format_number(0.0123), "0.0123");
  EXPECT_EQ(format_number(12345.6), "12,346");
  EXPECT_EQ(format_number(1e-5), "1.000e-05");
  EXPECT_EQ(format_number(NAN), "–");
  EXPECT_EQ(format_number(INFINITY), "infinite");
  EXPECT_EQ(format_count(134515008), "134.5 M");
  EXPECT_EQ(format_count(1200), "1,200");
  EXPECT_EQ(group_digits(-1234567.891, 2), "-1,234,567.89");
  EXPECT_EQ(group_digits(999, 0), "999");
  EXPECT_EQ(format_memory(3.0 * 1024 * 1024), "3.0 MiB");
  EXPECT_EQ(format_memory(NAN), "–");
}

}  // namespace
}  // namespace gantry::cli::report
