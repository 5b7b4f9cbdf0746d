#pragma once
// UTF-8: stepping, checking, repairing, and carrying invalid bytes through code that needs valid text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gantry::text {

/// One decoded character: its code point and length in bytes. An invalid byte gives {kInvalidCodePoint, 1}.
struct DecodedChar {
  char32_t code = 0;
  std::size_t length = 0;
};
inline constexpr char32_t kInvalidCodePoint = 0xffffffffu;

/// Decodes the character at `position` < text.size(). Overlong forms, surrogates and values above U+10FFFF are invalid.
DecodedChar decode_utf8(std::string_view text, std::size_t position);
void append_utf8(std::string& out, char32_t code);
bool is_valid_utf8(std::string_view text);

/// Bytes at the end of `text` that begin a character and may be completed by later bytes (0 to 3).
std::size_t incomplete_utf8_tail(std::string_view text);
/// Replaces every maximal invalid sequence by U+FFFD (the practice of the Unicode standard, as in WHATWG decoders).
std::string replace_invalid_utf8(std::string_view text);

/// Turns each byte that is no part of valid UTF-8 into one private-use character (U+10FF00 + byte); genuine characters
/// of that range are escaped byte by byte too, so that unescape_bytes() gives back the very input.
/// True when `text` holds something to escape.
bool needs_escape(std::string_view text);
std::string escape_invalid_utf8(std::string_view text);
std::string unescape_bytes(std::string_view text);

}  // namespace gantry::text
