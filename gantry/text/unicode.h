#pragma once
// Unicode properties and normal forms that tokenisers ask for (utf8proc behind it).
#include <string>
#include <string_view>

namespace gantry::text {

bool is_white_space(char32_t code);        ///< White_Space
bool is_mark(char32_t code);               ///< M
bool is_nonspacing_mark(char32_t code);    ///< Mn
bool is_punctuation(char32_t code);        ///< P
bool is_control_or_format(char32_t code);  ///< Cc, Cf, Cs, Co
bool is_word_char(char32_t code);          ///< Alphabetic, M, Nd, Pc, joiners
bool is_cjk_ideograph(char32_t code);      ///< the blocks that BERT sets apart

/// Appends the full lower-case mapping of one character, without context (no final sigma).
void append_lower(std::string& out, char32_t code);
std::string to_lower(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
/// `text` must be valid UTF-8.
std::string to_normal_form(std::string_view text, NormalForm form);

bool is_ascii(std::string_view text);

}  // namespace gantry::text
