#include "gantry/text/dataset_shard.h"

#include <bit>
#include <cstring>

#include "gantry/base/check.h"
#include "gantry/text/dataset_hash.h"

namespace gantry::text {
namespace {

static_assert(std::endian::native == std::endian::little, "token shards are mapped as they are");

constexpr char kMagic[8] = {'G', 'T', 'R', 'Y', 'T', 'O', 'K', '1'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kMasked = 1;

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t token_bytes;
  std::uint64_t tokens;
  std::uint64_t documents;
  std::uint64_t identity;
  std::uint64_t flags;
  std::uint64_t content_checksum;
  std::uint64_t header_checksum;
};
static_assert(sizeof(Header) == 64);

std::uint64_t checksum(std::span<const std::byte> bytes) {
  DataHash hash;
  hash.add(bytes);
  return hash.value();
}

std::uint64_t header_checksum(const Header& header) {
  return checksum(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_checksum)));
}

std::uint64_t read_u64(const std::byte* at) {
  std::uint64_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

Header read_header(std::span<const std::byte> bytes, const std::string& source) {
  GANTRY_CHECK(bytes.size() >= sizeof(Header), "{}: {} bytes are too few for a token shard", source, bytes.size());
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  GANTRY_CHECK(std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0, "{}: not a token shard", source);
  GANTRY_CHECK(header.version == kVersion, "{}: version {} of the shard format, expected {}", source, header.version,
               kVersion);
  GANTRY_CHECK(header.header_checksum == header_checksum(header), "{}: the header is damaged", source);
  GANTRY_CHECK(header.token_bytes == 2 || header.token_bytes == 4, "{}: {} bytes per token, expected 2 or 4", source,
               header.token_bytes);
  GANTRY_CHECK((header.flags & ~kMasked) == 0, "{}: unknown flags {}", source, header.flags);
  return header;
}

void append(std::string& out, const void* data, std::size_t size) { out.append(static_cast<const char*>(data), size); }

void append_tokens(std::string& out, const std::vector<std::int32_t>& tokens, bool narrow) {
  if (!narrow) {
    append(out, tokens.data(), tokens.size() * sizeof(std::int32_t));
    return;
  }
  std::vector<std::uint16_t> half(tokens.begin(), tokens.end());
  append(out, half.data(), half.size() * sizeof(std::uint16_t));
}

void append_mask(std::string& out, const std::vector<bool>& trained) {
  for (std::size_t at = 0; at < trained.size(); at += 8) {
    unsigned bits = 0;
    for (std::size_t i = at; i < std::min(at + 8, trained.size()); ++i) bits |= (trained[i] ? 1u : 0u) << (i - at);
    out += static_cast<char>(bits);
  }
}

}  // namespace

ShardView::ShardView(std::span<const std::byte> bytes, const std::string& source, Verify verify) {
  const Header header = read_header(bytes, source);
  token_count_ = header.tokens;
  document_count_ = header.documents;
  identity_ = header.identity;
  token_bytes_ = header.token_bytes;
  const bool masked = (header.flags & kMasked) != 0;
  // Each count is below the file's size, so that the sum below cannot overflow.
  const std::uint64_t size = bytes.size();
  GANTRY_CHECK(token_count_ <= size && document_count_ <= size, "{}: the header promises more than the file holds",
               source);
  const std::uint64_t expected =
      sizeof(Header) + 8 * (document_count_ + 1) + token_bytes_ * token_count_ + (masked ? (token_count_ + 7) / 8 : 0);
  GANTRY_CHECK(size == expected, "{}: {} bytes, expected {}; the file is truncated or damaged", source, size, expected);
  starts_ = bytes.data() + sizeof(Header);
  tokens_ = starts_ + 8 * (document_count_ + 1);
  if (masked) mask_ = tokens_ + token_bytes_ * token_count_;
  if (verify == Verify::kHeader) return;
  GANTRY_CHECK(checksum(bytes.subspan(sizeof(Header))) == header.content_checksum,
               "{}: the contents do not match their checksum", source);
  std::uint64_t last = 0;
  for (std::uint64_t i = 0; i <= document_count_; ++i) {
    const std::uint64_t start = read_u64(starts_ + 8 * i);
    GANTRY_CHECK(start >= last && start <= token_count_ && (i != 0 || start == 0), "{}: document {} starts at token {}",
                 source, i, start);
    last = start;
  }
  GANTRY_CHECK(last == token_count_, "{}: the documents end at token {} of {}", source, last, token_count_);
}

std::uint64_t ShardView::document_start(std::uint64_t document) const {
  GANTRY_CHECK(document <= document_count_, "document {} of {}", document, document_count_);
  return read_u64(starts_ + 8 * document);
}

void ShardView::copy_tokens(std::uint64_t begin, std::span<std::int32_t> out) const {
  GANTRY_CHECK(begin <= token_count_ && out.size() <= token_count_ - begin, "tokens {} to {} of {}", begin,
               begin + out.size(), token_count_);
  if (out.empty()) return;
  if (token_bytes_ == 4) {
    std::memcpy(out.data(), tokens_ + 4 * begin, out.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t token;
    std::memcpy(&token, tokens_ + 2 * (begin + i), sizeof(token));
    out[i] = token;
  }
}

bool ShardView::trained(std::uint64_t token) const {
  GANTRY_CHECK(token < token_count_, "token {} of {}", token, token_count_);
  return mask_ == nullptr || ((static_cast<unsigned>(mask_[token / 8]) >> (token % 8)) & 1u) != 0;
}

std::string shard_bytes(const ShardContent& content, std::int64_t vocab_size, std::uint64_t identity) {
  const bool narrow = vocab_size <= 65536;
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.token_bytes = narrow ? 2 : 4;
  header.tokens = content.tokens.size();
  header.documents = content.starts.size();
  header.identity = identity;
  header.flags = content.trained.empty() ? 0 : kMasked;
  std::string out(sizeof(Header), '\0');
  append(out, content.starts.data(), content.starts.size() * 8);
  append(out, &header.tokens, 8);
  append_tokens(out, content.tokens, narrow);
  append_mask(out, content.trained);
  header.content_checksum = checksum(std::as_bytes(std::span(out)).subspan(sizeof(Header)));
  header.header_checksum = header_checksum(header);
  std::memcpy(out.data(), &header, sizeof(header));
  return out;
}

void write_shard(const std::filesystem::path& path, const ShardContent& content, std::int64_t vocab_size,
                 std::uint64_t identity) {
  base::write_file_atomically(path, shard_bytes(content, vocab_size, identity));
}

}  // namespace gantry::text
