#include <cctype>

#include "gantry/base/check.h"
#include "gantry/text/regex.h"

namespace gantry::text {

// Alphabetic is L, Nl, circled and squared letters, and marks, which belong to a word anyway.
#define GANTRY_ALPHABETIC                                                                          \
  "\\p{L}\\p{M}\\p{Nl}\\p{Nd}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
  "\\x{1f170}-\\x{1f189}"

const char* const kUnicodeWordSet = GANTRY_ALPHABETIC "\\x{200c}\\x{200d}";

namespace {

// Oniguruma counts Latin-1's superscripts and fractions as word characters, but not inside a bracket expression.
constexpr const char* kWordSet = GANTRY_ALPHABETIC "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
constexpr const char* kWordMembers = GANTRY_ALPHABETIC;
constexpr const char* kSpaceSet =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view source) : pattern_(pattern), source_(source) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\' && at_ + 1 < pattern_.size()) {
        escape();
      } else if (in_class_) {
        class_member(c);
      } else {
        if (c == '[')
          open_class();
        else
          copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  void copy(std::size_t count) {
    out_.append(pattern_.substr(at_, count));
    at_ += count;
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') {  // a bracket in first place is a member
      out_ += "\\]";
      ++at_;
    }
  }

  void class_member(char c) {
    if (c == ']') {
      in_class_ = false;
    } else if (c == '[') {
      const std::size_t end = pattern_.find(":]", at_);
      GANTRY_CHECK(
          pattern_.substr(at_, 2) == "[:" && end != std::string_view::npos,
          "{}: pattern '{}' nests bracket expressions at offset {}, which is not supported; write the union as "
          "one bracket expression",
          source_, pattern_, at_);
      copy(end + 2 - at_);
      return;
    }
    GANTRY_CHECK(
        pattern_.substr(at_, 2) != "&&",
        "{}: pattern '{}' intersects bracket expressions at offset {}, which is not supported; write it with a "
        "lookahead",
        source_, pattern_, at_);
    copy(1);
  }

  void escape() {
    const char kind = pattern_[at_ + 1];
    switch (kind) {
      case 'w':
      case 'W': return set(in_class_ ? kWordMembers : kWordSet, kind == 'W');
      case 's':
      case 'S': return set(kSpaceSet, kind == 'S');
      case 'h':
      case 'H': return set("0-9a-fA-F", kind == 'H');
      case 'b':
      case 'B': return boundary(kind == 'B');
      case 'u': return unicode();
      default: copy(2);
    }
  }

  // A negated set inside a bracket expression cannot be spelled out; PCRE2's own escape is the nearest.
  void set(const char* members, bool negated) {
    if (in_class_ && negated) return copy(2);
    if (!in_class_) out_ += negated ? "[^" : "[";
    out_ += members;
    if (!in_class_) out_ += "]";
    at_ += 2;
  }

  // Between a word character and another one; PCRE2's own \b goes by its own idea of a word.
  void boundary(bool negated) {
    if (in_class_) return copy(2);
    const std::string in = fmt::format("[{}]", kWordSet);
    out_ += fmt::format(
        fmt::runtime(negated ? "(?:(?<={0})(?={0})|(?<!{0})(?!{0}))" : "(?:(?<={0})(?!{0})|(?<!{0})(?={0}))"), in);
    at_ += 2;
  }

  void unicode() {
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    bool all_hex = digits.size() == 4;
    for (const char d : digits) all_hex = all_hex && std::isxdigit(static_cast<unsigned char>(d)) != 0;
    GANTRY_CHECK(all_hex, "{}: pattern '{}' has \\u without four hexadecimal digits at offset {}", source_, pattern_,
                 at_);
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
  }

  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }

  std::string_view pattern_;
  std::string_view source_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, std::string_view source) {
  return Translator(pattern, source).run();
}

std::string escape_pattern(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && std::isalnum(static_cast<unsigned char>(c)) == 0) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace gantry::text
