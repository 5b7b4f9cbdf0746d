#include "gantry/text/charsmap.h"

#include <gtest/gtest.h>

#include "gantry/base/file.h"
#include "gantry/base/random.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/utf8.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

std::string real_map() {
  const auto path = text_data() / "sp-unigram" / "tokenizer.model";
  return parse_sentencepiece(base::read_text_file(path), path.string()).charsmap;
}

TEST(Charsmap, ReplacesTheLongestSequence) {
  const Charsmap map(real_map(), "test");
  EXPECT_EQ(map.apply("\xef\xac\x81ne 1\xef\xbc\x92\xe2\x91\xa0"), "fine 121");
  EXPECT_EQ(map.apply("cafe\xcc\x81 cafe"), "caf\xc3\xa9 cafe");
  EXPECT_EQ(map.apply("e"), "e");  // the beginning of a longer key alone
  EXPECT_EQ(map.apply("a\tb\xe2\x80\x8b"), "a b");
  EXPECT_EQ(map.apply(""), "");
}

TEST(Charsmap, DamagedMapsGiveValidTextOrAnError) {
  const std::string good = real_map();
  base::CounterRandom random(3);
  const std::string text = "\xef\xac\x81ne caf\x65\xcc\x81 \xef\xbc\x92 plain";
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good.substr(0, i % 4 == 0 ? random.below(good.size()) : good.size());
    for (int k = 0; k < 3 && !bad.empty(); ++k)
      bad[random.below(bad.size())] ^= static_cast<char>(1u << random.below(8));
    const std::string message = message_of([&] { EXPECT_TRUE(is_valid_utf8(Charsmap(bad, "x.model").apply(text))); });
    EXPECT_TRUE(message.empty() || message.starts_with("x.model: ")) << message;
  }
  EXPECT_EQ(message_of([] { Charsmap("abc", "x.model"); }),
            "x.model: the precompiled charsmap has 3 bytes, expected at least 4");
  EXPECT_NE(message_of([] { Charsmap(std::string("\xff\xff\xff\x7f", 4) + "abcd", "x.model"); }).find("4 follow"),
            std::string::npos);
}

TEST(Charsmap, Base64IsItsOwnInverse) {
  for (const std::string bytes : {"", "a", "ab", "abc", "\xff\x00\x10z"}) {
    EXPECT_EQ(decode_base64(encode_base64(bytes), "test"), bytes);
  }
  EXPECT_EQ(encode_base64("ab"), "YWI=");
  EXPECT_NE(message_of([] { decode_base64("Y*I=", "t.json"); }).find("is no base64"), std::string::npos);
}

}  // namespace
}  // namespace gantry::text
