#include "gantry/text/charsmap.h"

#include <cstring>

#include "gantry/base/check.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

// Far above any real map (the longest replacement of nmt_nfkc has 33 bytes); bound the work that a forged one can
// cause.
constexpr std::size_t kMaxKeyBytes = 256;
constexpr std::size_t kMaxReplacementBytes = 1024;
constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return value;
}

// Fields of one trie unit.
bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1u) != 0; }
std::uint32_t leaf_value(std::uint32_t unit) { return unit & 0x7fffffffu; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000ffu; }
std::uint32_t child_offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view source) {
  GANTRY_CHECK(blob.size() >= 4, "{}: the precompiled charsmap has {} bytes, expected at least 4", source, blob.size());
  const std::uint32_t trie_bytes = read_u32(blob, 0);
  GANTRY_CHECK(trie_bytes % 4 == 0 && trie_bytes > 0 && trie_bytes <= blob.size() - 4,
               "{}: the precompiled charsmap declares a trie of {} bytes, {} follow", source, trie_bytes,
               blob.size() - 4);
  units_.resize(trie_bytes / 4);
  for (std::size_t i = 0; i < units_.size(); ++i) units_[i] = read_u32(blob, 4 + 4 * i);
  replacements_ = blob.substr(4 + trie_bytes);
  replacements_.push_back('\0');  // ends the last one even in a damaged map
  for (std::size_t begin = 0; begin < replacements_.size();) {
    const std::size_t end = replacements_.find('\0', begin);
    GANTRY_CHECK(end - begin <= kMaxReplacementBytes,
                 "{}: the precompiled charsmap has a replacement of {} bytes, the limit is {}", source, end - begin,
                 kMaxReplacementBytes);
    begin = end + 1;
  }
}

Charsmap::Hit Charsmap::longest(std::string_view text) const {
  Hit best;
  std::uint32_t node = child_offset(units_[0]);
  for (std::size_t i = 0; i < text.size() && i < kMaxKeyBytes; ++i) {
    const std::uint32_t byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label(units_[node]) != byte) break;
    const std::uint32_t unit = units_[node];
    node ^= child_offset(unit);
    if (node >= units_.size()) break;
    if (has_leaf(unit)) best = {i + 1, leaf_value(units_[node])};
  }
  return best;
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const Hit hit = longest(text.substr(position));
    if (hit.length > 0 && hit.offset < replacements_.size()) {
      out.append(replacements_.c_str() + hit.offset);
      position += hit.length;
    } else {
      const std::size_t length = decode_utf8(text, position).length;
      out.append(text.substr(position, length));
      position += length;
    }
  }
  return is_valid_utf8(out) ? out : replace_invalid_utf8(out);
}

std::string decode_base64(std::string_view encoded, std::string_view source) {
  std::string out;
  out.reserve(encoded.size() / 4 * 3);
  while (encoded.ends_with('=')) encoded.remove_suffix(1);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : encoded) {
    const std::size_t value = kAlphabet.find(c);
    GANTRY_CHECK(value != std::string_view::npos, "{}: byte 0x{:02x} is no base64", source,
                 static_cast<unsigned char>(c));
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>((bits >> count) & 0xffu));
    }
  }
  return out;
}

std::string encode_base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    const std::size_t left = bytes.size() - i < 3 ? bytes.size() - i : 3;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = (bits << 8) | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) out.push_back(k <= left ? kAlphabet[(bits >> (18 - 6 * k)) & 63u] : '=');
  }
  return out;
}

}  // namespace gantry::text
