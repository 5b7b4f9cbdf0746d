#include "gantry/text/unicode.h"

#include <utf8proc.h>

#include <cstdlib>

#include "gantry/base/check.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

utf8proc_category_t category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

bool in(char32_t code, char32_t low, char32_t high) { return code >= low && code <= high; }

}  // namespace

bool is_white_space(char32_t code) {
  if (code < 0x80) return in(code, 9, 13) || code == ' ';
  return code == 0x85 || code == 0xa0 || code == 0x1680 || in(code, 0x2000, 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool is_mark(char32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t code) { return category(code) == UTF8PROC_CATEGORY_MN; }

bool is_punctuation(char32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool is_control_or_format(char32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CS ||
         c == UTF8PROC_CATEGORY_CO;
}

bool is_word_char(char32_t code) {
  const auto c = category(code);
  if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) return true;  // letters, marks, Nd, Nl
  if (c == UTF8PROC_CATEGORY_PC || code == 0x200c || code == 0x200d) return true;
  return in(code, 0x24b6, 0x24e9) || in(code, 0x1f130, 0x1f149) || in(code, 0x1f150, 0x1f169) ||
         in(code, 0x1f170, 0x1f189);
}

bool is_cjk_ideograph(char32_t code) {
  return in(code, 0x4e00, 0x9fff) || in(code, 0x3400, 0x4dbf) || in(code, 0x20000, 0x2a6df) ||
         in(code, 0x2a700, 0x2b73f) || in(code, 0x2b740, 0x2b81f) || in(code, 0x2b920, 0x2ceaf) ||
         in(code, 0xf900, 0xfaff) || in(code, 0x2f800, 0x2fa1f);
}

void append_lower(std::string& out, char32_t code) {
  if (code == 0x130) {  // the only character whose lower case is two
    out += "i\xcc\x87";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  }
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const DecodedChar c = decode_utf8(text, position);
    append_lower(out, c.code);
    position += c.length;
  }
  return out;
}

std::string to_normal_form(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  int options = UTF8PROC_STABLE;
  const bool composed = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(options));
  GANTRY_CHECK(length >= 0, "a text of {} bytes has no Unicode normal form: {}", text.size(), utf8proc_errmsg(length));
  std::string out(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
  std::free(mapped);
  return out;
}

bool is_ascii(std::string_view text) {
  unsigned char seen = 0;
  for (const char c : text) seen |= static_cast<unsigned char>(c);
  return seen < 0x80;
}

}  // namespace gantry::text
