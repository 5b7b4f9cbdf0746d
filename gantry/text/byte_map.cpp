#include "gantry/text/byte_map.h"

#include <fmt/format.h>

#include <array>

#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

constexpr bool is_printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

struct Tables {
  std::array<char32_t, 256> to_char{};
  std::array<short, 0x144> to_byte{};  // the largest spelling is U+0143
};

constexpr Tables make_tables() {
  Tables tables;
  for (auto& byte : tables.to_byte) byte = -1;
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char32_t code = is_printable(byte) ? byte : next++;
    tables.to_char[byte] = code;
    tables.to_byte[code] = static_cast<short>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

char32_t byte_to_char(unsigned char byte) { return kTables.to_char[byte]; }

int char_to_byte(char32_t code) { return code < kTables.to_byte.size() ? kTables.to_byte[code] : -1; }

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char c : bytes) append_utf8(out, byte_to_char(static_cast<unsigned char>(c)));
  return out;
}

bool unspell_bytes(std::string_view spelled, std::string& out) {
  const std::size_t start = out.size();
  for (std::size_t position = 0; position < spelled.size();) {
    const DecodedChar c = decode_utf8(spelled, position);
    const int byte = char_to_byte(c.code);
    if (byte < 0) {
      out.resize(start);
      return false;
    }
    out.push_back(static_cast<char>(byte));
    position += c.length;
  }
  return true;
}

int byte_token_value(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]);
  const int low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

std::string byte_token(unsigned char byte) { return fmt::format("<0x{:02X}>", byte); }

}  // namespace gantry::text
