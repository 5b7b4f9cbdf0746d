#include "gantry/text/dataset_shard.h"

#include <gtest/gtest.h>

#include <numeric>

#include "gantry/base/check.h"
#include "gantry/text/dataset_hash.h"
#include "tests/text/byte_tokenizer.h"

namespace gantry::text {
namespace {

ShardContent sample_content(bool masked) {
  ShardContent content;
  content.tokens.resize(1000);
  std::iota(content.tokens.begin(), content.tokens.end(), 3);
  content.starts = {0, 10, 11, 640};
  for (std::size_t i = 0; masked && i < content.tokens.size(); ++i) content.trained.push_back(i % 3 == 0);
  return content;
}

std::string shard_error(const std::string& bytes) {
  try {
    const ShardView view(std::as_bytes(std::span(bytes)), "s", ShardView::Verify::kAll);
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "accepted";
}

class ShardRoundTrip : public ::testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(ShardRoundTrip, GivesBackTokensDocumentsAndMask) {
  const auto [vocab_size, masked] = GetParam();
  const ShardContent content = sample_content(masked);
  const TemporaryFolder folder;
  write_shard(folder / "x", content, vocab_size, 77);
  const TokenShard shard(folder / "x", ShardView::Verify::kAll);
  const ShardView& view = shard.view();
  EXPECT_EQ(view.identity(), 77u);
  ASSERT_EQ(view.token_count(), 1000u);
  ASSERT_EQ(view.document_count(), 4u);
  EXPECT_EQ(view.document_start(3), 640u);
  EXPECT_EQ(view.document_start(4), 1000u);
  EXPECT_EQ(view.masked(), masked);
  std::vector<std::int32_t> tokens(990);
  view.copy_tokens(7, tokens);
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), content.tokens.begin() + 7));
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(view.trained(i), !masked || i % 3 == 0);
  const auto size = std::filesystem::file_size(folder / "x");
  EXPECT_EQ(size, 64 + 5 * 8 + 1000 * (vocab_size > 65536 ? 4 : 2) + (masked ? 125 : 0));
}

INSTANTIATE_TEST_SUITE_P(Widths, ShardRoundTrip,
                         ::testing::Combine(::testing::Values(2000, 65536, 65537), ::testing::Bool()));

TEST(Shard, EveryTruncationIsRefused) {
  const std::string bytes = shard_bytes(sample_content(true), 2000, 1);
  ASSERT_EQ(shard_error(bytes), "accepted");
  for (std::size_t size = 0; size < bytes.size(); size += 7)
    EXPECT_NE(shard_error(bytes.substr(0, size)), "accepted") << size;
  EXPECT_NE(shard_error(bytes + "x"), "accepted");
}

TEST(Shard, EveryFlippedBitIsNoticed) {
  const std::string bytes = shard_bytes(sample_content(true), 2000, 1);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    ASSERT_NE(shard_error(damaged), "accepted") << at;
  }
}

TEST(Shard, MessagesSayWhatIsWrong) {
  const std::string bytes = shard_bytes(sample_content(false), 2000, 1);
  EXPECT_EQ(shard_error(""), "s: 0 bytes are too few for a token shard");
  EXPECT_EQ(shard_error(std::string(64, 'x')), "s: not a token shard");
  EXPECT_EQ(shard_error(bytes.substr(0, 2000)), "s: 2000 bytes, expected 2104; the file is truncated or damaged");
  std::string damaged = bytes;
  damaged[500] = '!';
  EXPECT_EQ(shard_error(damaged), "s: the contents do not match their checksum");
  damaged = bytes;
  damaged[17] = '!';
  EXPECT_EQ(shard_error(damaged), "s: the header is damaged");
  ShardContent disordered = sample_content(false);
  disordered.starts = {0, 50, 20, 640};
  EXPECT_EQ(shard_error(shard_bytes(disordered, 2000, 1)), "s: document 2 starts at token 20");
}

TEST(Shard, AccessOutsideIsRefused) {
  const std::string bytes = shard_bytes(sample_content(false), 2000, 1);
  const ShardView view(std::as_bytes(std::span(bytes)), "s", ShardView::Verify::kAll);
  std::vector<std::int32_t> tokens(2);
  EXPECT_THROW(view.copy_tokens(999, tokens), base::InputError);
  EXPECT_THROW(view.document_start(5), base::InputError);
  EXPECT_THROW(view.trained(1000), base::InputError);
}

TEST(DataHash, DependsOnTheBytesAndNotOnHowTheyArrive) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>(i * 37);
  DataHash whole;
  whole.add(text);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    DataHash pieces;
    pieces.add(std::string_view(text).substr(0, cut));
    pieces.add(std::string_view(text).substr(cut));
    EXPECT_EQ(pieces.value(), whole.value()) << cut;
    DataHash shorter;
    shorter.add(std::string_view(text).substr(0, cut));
    EXPECT_EQ(shorter.value() == whole.value(), cut == text.size());
  }
  DataHash zero, zeros;
  zero.add(std::string_view("\0", 1));
  zeros.add(std::string_view("\0\0", 2));
  EXPECT_NE(zero.value(), zeros.value());
}

}  // namespace
}  // namespace gantry::text
