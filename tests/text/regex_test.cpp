#include "gantry/text/regex.h"

#include <gtest/gtest.h>

#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

bool matches_whole(const char* pattern, std::string_view text) {
  const auto match = Regex(pattern, "test").find(text, 0);
  return match && match->begin == 0 && match->end == text.size();
}

TEST(Regex, ClassesFollowTheDialectOfTokenizerFiles) {
  EXPECT_TRUE(matches_whole("\\w+", "caf\xc3\xa9_\xcc\x81"));  // a combining mark is part of a word
  EXPECT_TRUE(matches_whole("\\s+", " \t\r\n\xc2\x85\xe3\x80\x80"));
  EXPECT_FALSE(matches_whole("\\s", "\xe1\xa0\x8e"));  // U+180E is no white space any more
  EXPECT_TRUE(matches_whole("\\h+", "09afAF"));
  EXPECT_TRUE(matches_whole("[\\h_]+", "0_f"));
  EXPECT_TRUE(matches_whole("\\u00e9", "\xc3\xa9"));
  EXPECT_TRUE(matches_whole("[]a]+", "a]"));
  EXPECT_TRUE(matches_whole("[^]]", "a"));
  EXPECT_TRUE(matches_whole("[[:alpha:]]+", "ab"));
  EXPECT_TRUE(matches_whole("(?i:'ll)", "'LL"));
  EXPECT_EQ(Regex("b$", "test").find("ab\nc", 0)->begin, 1u);  // $ is the end of any line
}

TEST(Regex, EscapedLiteralsMatchThemselves) {
  const std::string literal = "a.b[c]*\\d\n\xe2\x96\x81 (x)";
  EXPECT_TRUE(matches_whole(escape_pattern(literal).c_str(), literal));
  EXPECT_FALSE(Regex(escape_pattern("."), "test").find("a", 0));
}

TEST(Regex, ErrorsNameTheFileThePatternAndThePlace) {
  EXPECT_EQ(message_of([] { Regex("a(b", "t.json"); }),
            "t.json: pattern 'a(b' does not compile: missing closing parenthesis at offset 3 of 'a(b'");
  EXPECT_NE(message_of([] { Regex("[a[b]]", "t.json"); }).find("nests bracket expressions at offset 2"),
            std::string::npos);
  EXPECT_NE(message_of([] { Regex("[a&&b]", "t.json"); }).find("intersects bracket expressions"), std::string::npos);
  EXPECT_NE(message_of([] { Regex("\\u12", "t.json"); }).find("four hexadecimal digits"), std::string::npos);
  EXPECT_NE(message_of([] { Regex(std::string(100000, 'a'), "t.json"); }).find("longer than the limit"),
            std::string::npos);
}

TEST(Regex, CatastrophicBacktrackingIsStopped) {
  const Regex pattern("(a|a|aa)*$", "t.json");
  const std::string text = std::string(64, 'a') + "b";
  EXPECT_NE(message_of([&] { pattern.find(text, 0); }).find("too costly"), std::string::npos);
}

TEST(Regex, LongRunsNeedNoDeepStack) {
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(Regex("\\s+(?!\\S)|\\s+", "test").find(spaces + "x", 0)->end, spaces.size() - 1);
  EXPECT_EQ(Regex("\\s*[\\r\\n]+|\\s+", "test").find(spaces, 0)->end, spaces.size());
}

}  // namespace
}  // namespace gantry::text
