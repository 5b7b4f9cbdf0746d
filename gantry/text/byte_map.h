#pragma once
// The byte alphabet of byte-level BPE: each byte is spelled as one printable character (space as U+0120).
#include <string>
#include <string_view>

namespace gantry::text {

/// The code point that spells a byte.
char32_t byte_to_char(unsigned char byte);
/// The byte that a character spells, or -1.
int char_to_byte(char32_t code);

/// Spells every byte of `bytes`.
std::string spell_bytes(std::string_view bytes);
/// Inverse; false (and `out` as it was) when a character spells no byte.
bool unspell_bytes(std::string_view spelled, std::string& out);

/// Value of a byte token "<0x0A>", or -1.
int byte_token_value(std::string_view token);
/// "<0x0A>" for 10.
std::string byte_token(unsigned char byte);

}  // namespace gantry::text
