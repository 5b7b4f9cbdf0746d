#pragma once
// Token shards: files of token ids with document boundaries, mapped read-only while training.
//
// Layout, little-endian (the only byte order that Gantry runs on):
//   0   magic "GTRYTOK1"        8   version, u32            12  bytes per token, u32 (2 or 4)
//   16  tokens, u64             24  documents, u64          32  identity of tokeniser, sources and options, u64
//   40  flags, u64 (1: masked)  48  checksum of all bytes after the header, u64
//   56  checksum of bytes 0-55, u64
//   64  first token of each document and, last, the number of tokens: u64 x (documents + 1)
//       tokens
//       if masked, one bit a token, lowest bit first: 1 where the token counts in the loss
// Goals: opening costs no copy; every damage is noticed. Not goals: appending, other byte orders.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gantry/base/file.h"

namespace gantry::text {

/// What a shard holds, before it is written.
struct ShardContent {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint64_t> starts;  // first token of each document; ascending, the first is 0
  std::vector<bool> trained;          // empty: all tokens count
};

/// A view of a shard's bytes.
class ShardView {
 public:
  enum class Verify { kHeader, kAll };
  /// Checks sizes and header, with kAll also the checksum of the contents. Throws InputError naming `source`. The bytes
  /// must outlive the view.
  ShardView(std::span<const std::byte> bytes, const std::string& source, Verify verify);

  std::uint64_t token_count() const { return token_count_; }
  std::uint64_t document_count() const { return document_count_; }
  std::uint64_t identity() const { return identity_; }
  bool masked() const { return mask_ != nullptr; }
  std::uint64_t document_start(std::uint64_t document) const;
  /// Copies tokens [begin, begin + out.size()).
  void copy_tokens(std::uint64_t begin, std::span<std::int32_t> out) const;
  bool trained(std::uint64_t token) const;

 private:
  std::uint64_t token_count_ = 0;
  std::uint64_t document_count_ = 0;
  std::uint64_t identity_ = 0;
  std::uint32_t token_bytes_ = 0;
  const std::byte* starts_ = nullptr;
  const std::byte* tokens_ = nullptr;
  const std::byte* mask_ = nullptr;
};

/// A mapped shard file.
class TokenShard {
 public:
  TokenShard(const std::filesystem::path& path, ShardView::Verify verify)
      : file_(path), view_(file_.bytes(), path.string(), verify) {}
  const ShardView& view() const { return view_; }

 private:
  base::MappedFile file_;
  ShardView view_;
};

/// Writes a shard atomically; 2 bytes a token where vocab_size allows, else 4.
void write_shard(const std::filesystem::path& path, const ShardContent& content, std::int64_t vocab_size,
                 std::uint64_t identity);

/// The same bytes in memory; for tests.
std::string shard_bytes(const ShardContent& content, std::int64_t vocab_size, std::uint64_t identity);

}  // namespace gantry::text
