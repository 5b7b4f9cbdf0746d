#include "gantry/text/utf8.h"

#include <gtest/gtest.h>

namespace gantry::text {
namespace {

TEST(Utf8, DecodesEveryLengthAndRejectsWhatTheStandardForbids) {
  EXPECT_EQ(decode_utf8("a", 0).code, U'a');
  EXPECT_EQ(decode_utf8("\xc3\xa9", 0).code, U'\u00e9');
  EXPECT_EQ(decode_utf8("\xe2\x82\xac", 0).code, U'\u20ac');
  EXPECT_EQ(decode_utf8("\xf0\x9f\x98\x80", 0).code, U'\U0001f600');
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xf0\x9f\x98"}) {
    EXPECT_EQ(decode_utf8(bad, 0).code, kInvalidCodePoint) << bad;
    EXPECT_EQ(decode_utf8(bad, 0).length, 1u);
    EXPECT_FALSE(is_valid_utf8(bad));
  }
}

TEST(Utf8, AppendIsTheInverseOfDecode) {
  for (const char32_t code :
       {U'\0', U'\x7f', U'\x80', U'\u07ff', U'\u0800', U'\ud7ff', U'\ue000', U'\uffff', U'\U00010000', U'\U0010ffff'}) {
    std::string text;
    append_utf8(text, code);
    EXPECT_EQ(decode_utf8(text, 0).code, code);
    EXPECT_EQ(decode_utf8(text, 0).length, text.size());
  }
}

TEST(Utf8, TailCountsOnlyBytesThatLaterOnesMayComplete) {
  EXPECT_EQ(incomplete_utf8_tail(""), 0u);
  EXPECT_EQ(incomplete_utf8_tail("a"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("a\xc3"), 1u);
  EXPECT_EQ(incomplete_utf8_tail("\xe2\x82"), 2u);
  EXPECT_EQ(incomplete_utf8_tail("\xf0\x9f\x98"), 3u);
  EXPECT_EQ(incomplete_utf8_tail("\xf0\x9f\x98\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("\xe0\x80"), 0u);  // never valid, whatever follows
  EXPECT_EQ(incomplete_utf8_tail("\x80\x80"), 0u);
}

TEST(Utf8, ReplacesEachMaximalInvalidSequenceOnce) {
  const std::string mark = "\xef\xbf\xbd";
  EXPECT_EQ(replace_invalid_utf8("a\xe2\x82z"), "a" + mark + "z");
  EXPECT_EQ(replace_invalid_utf8("\xff\xfe"), mark + mark);
  EXPECT_EQ(replace_invalid_utf8("\xe0\x80"), mark + mark);
  EXPECT_EQ(replace_invalid_utf8("h\xc3\xa9"), "h\xc3\xa9");
}

TEST(Utf8, EscapedBytesComeBackWhateverTheInput) {
  std::string all = "plain \xf4\x8f\xbf\xbf genuine \xf4\x8f\xbe\x80";
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_TRUE(needs_escape(all));
  EXPECT_TRUE(needs_escape("\xf4\x8f\xbf\xbf"));
  EXPECT_FALSE(needs_escape("h\xc3\xa9 \xf4\x8f\xbb\xbf"));
  const std::string escaped = escape_invalid_utf8(all);
  EXPECT_TRUE(is_valid_utf8(escaped));
  EXPECT_EQ(unescape_bytes(escaped), all);
}

}  // namespace
}  // namespace gantry::text
