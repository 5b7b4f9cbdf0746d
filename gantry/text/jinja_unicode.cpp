#include "gantry/text/jinja_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "gantry/text/utf8.h"

namespace gantry::text::jinja {
namespace {

template <class Map>
std::string mapped(std::string_view text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t code = next_code(text, at);
    const char32_t result = map(code);
    if (result == code) {  // also bytes that form no character
      out.append(text.substr(begin, at - begin));
    } else {
      append_utf8(out, result);
    }
  }
  return out;
}

}  // namespace

char32_t next_code(std::string_view text, std::size_t& position) {
  const DecodedChar decoded = decode_utf8(text, position);
  position += decoded.length;
  return decoded.code;
}

std::size_t code_count(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) next_code(text, at);
  return count;
}

std::vector<std::size_t> code_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size();) {
    offsets.push_back(at);
    next_code(text, at);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool is_unicode_space(char32_t c) {
  return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

char32_t to_lower(char32_t c) {
  return c > 0x10ffff ? c : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

char32_t to_upper(char32_t c) {
  if (c == 0xdf) return c;  // its capital is two letters, which upper() sees to
  return c > 0x10ffff ? c : static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}

namespace {

utf8proc_category_t category_of(char32_t c) {
  return c > 0x10ffff ? UTF8PROC_CATEGORY_CN : utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

bool is_cased(char32_t c) {
  const auto category = category_of(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

bool is_digit(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_ND; }

bool is_letter(char32_t c) {
  const auto category = category_of(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_alphanumeric(char32_t c) {
  const auto category = category_of(c);
  return is_letter(c) || (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

std::string upper(std::string_view text) {
  std::string out = mapped(text, to_upper);
  // The one common letter whose capital is two letters.
  for (std::size_t at = out.find("\u00df"); at != std::string::npos; at = out.find("\u00df", at))
    out.replace(at, 2, "SS");
  return out;
}

std::string lower(std::string_view text) { return mapped(text, to_lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&](char32_t c) { return std::exchange(first, false) ? to_upper(c) : to_lower(c); });
}

std::string title(std::string_view text) {
  bool inside = false;
  return mapped(text, [&](char32_t c) {
    const char32_t result = inside ? to_lower(c) : to_upper(c);
    inside = is_cased(c);
    return result;
  });
}

std::string_view strip(std::string_view text, Side side, const std::string* set) {
  std::vector<char32_t> drop;
  if (set != nullptr) {
    for (std::size_t at = 0; at < set->size();) drop.push_back(next_code(*set, at));
    std::sort(drop.begin(), drop.end());
  }
  const auto dropped = [&](char32_t c) {
    return set == nullptr ? is_unicode_space(c) : std::binary_search(drop.begin(), drop.end(), c);
  };
  std::size_t begin = 0;
  if (side != Side::kRight) {
    for (std::size_t at = 0; at < text.size() && dropped(next_code(text, at));) begin = at;
  }
  std::size_t end = text.size();
  while (side != Side::kLeft && end > begin) {
    std::size_t last = end - 1;
    while (last > begin && end - last < 4 && (static_cast<std::uint8_t>(text[last]) & 0xc0) == 0x80) --last;
    std::size_t at = last;
    char32_t code = next_code(text, at);
    if (at != end) code = next_code(text, at = last = end - 1);  // malformed: the last byte stands alone
    if (!dropped(code)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

}  // namespace gantry::text::jinja
