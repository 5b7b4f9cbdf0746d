#include "gantry/text/utf8.h"

#include <algorithm>
#include <cstring>

namespace gantry::text {
namespace {

constexpr char32_t kEscapeBase = 0x10ff00;
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

unsigned byte_at(std::string_view text, std::size_t position) { return static_cast<unsigned char>(text[position]); }

bool is_escape(char32_t code) { return code >= kEscapeBase && code <= kEscapeBase + 0xff; }

// What the first byte of a character allows: its length (0: no first byte) and the range of the second byte.
struct Lead {
  unsigned length;
  unsigned second_low;
  unsigned second_high;
};

Lead lead_of(unsigned first) {
  if (first < 0x80) return {1, 0, 0};
  if (first < 0xc2) return {0, 0, 0};
  if (first < 0xe0) return {2, 0x80, 0xbf};
  if (first < 0xf0) return {3, first == 0xe0 ? 0xa0u : 0x80u, first == 0xed ? 0x9fu : 0xbfu};
  if (first < 0xf5) return {4, first == 0xf0 ? 0x90u : 0x80u, first == 0xf4 ? 0x8fu : 0xbfu};
  return {0, 0, 0};
}

// Length of the longest prefix of a character at `position`: equal to lead.length when whole, 0 when none starts here.
unsigned prefix_length(std::string_view text, std::size_t position) {
  const Lead lead = lead_of(byte_at(text, position));
  if (lead.length <= 1) return lead.length;
  unsigned found = 1;
  while (found < lead.length && position + found < text.size()) {
    const unsigned next = byte_at(text, position + found);
    const unsigned low = found == 1 ? lead.second_low : 0x80u;
    const unsigned high = found == 1 ? lead.second_high : 0xbfu;
    if (next < low || next > high) break;
    ++found;
  }
  return found;
}

}  // namespace

DecodedChar decode_utf8(std::string_view text, std::size_t position) {
  const unsigned first = byte_at(text, position);
  if (first < 0x80) return {first, 1};
  const unsigned length = lead_of(first).length;
  if (length == 0 || prefix_length(text, position) != length) return {kInvalidCodePoint, 1};
  char32_t code = first & (0xffu >> (length + 1));
  for (unsigned i = 1; i < length; ++i) code = (code << 6) | (byte_at(text, position + i) & 0x3fu);
  return {code, length};
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&out](unsigned value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3f));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

bool is_valid_utf8(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    std::uint64_t word;
    if (position + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + position, sizeof word);
      if ((word & 0x8080808080808080ull) == 0) {
        position += sizeof word;
        continue;
      }
    }
    const DecodedChar c = decode_utf8(text, position);
    if (c.code == kInvalidCodePoint) return false;
    position += c.length;
  }
  return true;
}

std::size_t incomplete_utf8_tail(std::string_view text) {
  const std::size_t furthest = std::min<std::size_t>(3, text.size());
  for (std::size_t back = 1; back <= furthest; ++back) {
    const std::size_t start = text.size() - back;
    if ((byte_at(text, start) & 0xc0u) == 0x80u) continue;
    const unsigned length = lead_of(byte_at(text, start)).length;
    return length > back && prefix_length(text, start) == back ? back : 0;
  }
  return 0;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const unsigned length = lead_of(byte_at(text, position)).length;
    const unsigned prefix = prefix_length(text, position);
    if (prefix != 0 && prefix == length) {
      out.append(text.substr(position, length));
      position += length;
    } else {
      out.append(kReplacement);
      position += std::max(prefix, 1u);
    }
  }
  return out;
}

bool needs_escape(std::string_view text) {
  if (!is_valid_utf8(text)) return true;
  for (std::size_t at = text.find("\xf4\x8f"); at != std::string_view::npos; at = text.find("\xf4\x8f", at + 1)) {
    if (is_escape(decode_utf8(text, at).code)) return true;
  }
  return false;
}

std::string escape_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  for (std::size_t position = 0; position < text.size();) {
    const DecodedChar c = decode_utf8(text, position);
    if (c.code == kInvalidCodePoint || is_escape(c.code)) {
      for (std::size_t i = 0; i < c.length; ++i) append_utf8(out, kEscapeBase + byte_at(text, position + i));
    } else {
      out.append(text.substr(position, c.length));
    }
    position += c.length;
  }
  return out;
}

std::string unescape_bytes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const DecodedChar c = decode_utf8(text, position);
    if (c.code != kInvalidCodePoint && is_escape(c.code)) {
      out.push_back(static_cast<char>(c.code - kEscapeBase));
    } else {
      out.append(text.substr(position, c.length));
    }
    position += c.length;
  }
  return out;
}

}  // namespace gantry::text
