#pragma once
// Code points of UTF-8 text, for the string operations of the template language. Malformed bytes count as one
// character each and pass through unchanged.
#include <string>
#include <string_view>
#include <vector>

namespace gantry::text::jinja {

/// Decodes the character at `position` and moves past it; a malformed byte gives kInvalidCodePoint.
char32_t next_code(std::string_view text, std::size_t& position);

/// Number of characters.
std::size_t code_count(std::string_view text);

/// Byte offset of each character, plus the length of the text at the end.
std::vector<std::size_t> code_offsets(std::string_view text);

/// Python's str.isspace for one character.
bool is_unicode_space(char32_t code);

/// Simple (one to one) case mapping.
char32_t to_upper(char32_t code);
char32_t to_lower(char32_t code);
bool is_cased(char32_t code);
/// Python's str.isdigit, isalpha and isalnum for one character (isdigit: decimal digits only).
bool is_digit(char32_t code);
bool is_letter(char32_t code);
bool is_alphanumeric(char32_t code);
/// Python's str.isprintable for one character.
bool is_printable(char32_t code);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// First character upper, the rest lower.
std::string capitalize(std::string_view text);
/// A character after an uncased one upper, the others lower (Python's str.title).
std::string title(std::string_view text);

enum class Side { kBoth, kLeft, kRight };
/// Python's strip: drops whitespace, or the characters of `set` when it is not null.
std::string_view strip(std::string_view text, Side side, const std::string* set = nullptr);

}  // namespace gantry::text::jinja
