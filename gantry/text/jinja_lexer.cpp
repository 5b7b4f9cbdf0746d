#include "gantry/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "gantry/base/check.h"
#include "gantry/text/utf8.h"

namespace gantry::text::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || (c & 0x80) != 0; }
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

/// "\r\n" and "\r" become "\n"; one newline at the very end is dropped.
std::string normalize_newlines(std::string_view source, bool drop_last) {
  std::string text;
  text.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (drop_last && !text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name) : name_(name), text_(normalize_newlines(source, true)) {}

  std::vector<Token> run() {
    while (position_ < text_.size()) {
      const std::size_t tag = find_tag();
      const char kind = tag == std::string::npos ? '\0' : text_[tag + 1];
      emit_data(tag, kind);
      if (tag == std::string::npos) break;
      advance(tag + 2);
      if (peek(0) == '-' || peek(0) == '+') advance(position_ + 1);
      if (kind == '#') {
        skip_comment();
      } else if (kind == '%' && at_word(skip_space(position_), "raw")) {
        read_raw();
      } else {
        read_tag(kind == '{');
      }
    }
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(std::string_view what) const { base::fail_input("{}, line {}: {}", name_, line_, what); }

  char peek(std::size_t ahead) const { return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0'; }

  void advance(std::size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > position_) line_starting_ = text_[to - 1] == '\n';
    position_ = to;
  }

  std::size_t skip_space(std::size_t from) const {
    while (from < text_.size() && is_space(text_[from])) ++from;
    return from;
  }

  bool at_word(std::size_t at, std::string_view word) const {
    return text_.compare(at, word.size(), word) == 0 &&
           (at + word.size() >= text_.size() || !is_name_char(text_[at + word.size()]));
  }

  std::size_t find_tag() const {
    for (std::size_t at = text_.find('{', position_); at != std::string::npos; at = text_.find('{', at + 1)) {
      const char next = at + 1 < text_.size() ? text_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string::npos;
  }

  void add(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
  }

  /// Text up to a tag, stripped as the tag asks: `kind` is '{', '%', '#', or 0 at the end of the template.
  void emit_data(std::size_t tag, char kind) {
    const std::size_t end = std::min(tag, text_.size());
    const char sign = kind != '\0' && tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    std::size_t keep = end;
    if (sign == '-') {
      while (keep > position_ && is_space(text_[keep - 1])) --keep;
    } else if (sign != '+' && (kind == '%' || kind == '#')) {
      keep = strip_left(position_, end, line_starting_);
    }
    if (keep > position_) add(TokenKind::kData, text_.substr(position_, keep - position_));
    advance(end);
  }

  /// lstrip_blocks: where the whitespace before a tag begins if nothing else stands on its line, else `end`.
  std::size_t strip_left(std::size_t begin, std::size_t end, bool line_starting) const {
    std::size_t at = end;
    while (at > begin && text_[at - 1] != '\n' && is_space(text_[at - 1])) --at;
    const bool whole_line = at > begin ? text_[at - 1] == '\n' : line_starting;
    return whole_line ? at : end;
  }

  /// Consumes what follows a closed block or comment: everything blank after `-`, one newline unless `+`.
  void trim_after(char sign) {
    if (sign == '-') {
      advance(skip_space(position_));
    } else if (sign != '+' && peek(0) == '\n') {
      advance(position_ + 1);
    }
  }

  void skip_comment() {
    const std::size_t end = text_.find("#}", position_);
    if (end == std::string::npos) error("a comment '{#' is never closed with '#}'");
    const char sign = end > position_ ? text_[end - 1] : '\0';
    advance(end + 2);
    trim_after(sign);
  }

  void read_raw() {
    advance(skip_space(position_) + 3);
    std::size_t at = skip_space(position_);
    const bool strip = at < text_.size() && text_[at] == '-';
    if (strip) ++at;
    if (text_.compare(at, 2, "%}") != 0) error("expected '%}' after 'raw'");
    advance(at + 2);
    if (strip) advance(skip_space(position_));
    for (std::size_t tag = text_.find("{%", position_); tag != std::string::npos; tag = text_.find("{%", tag + 2)) {
      const char open_sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      std::size_t word = skip_space(tag + 2 + (open_sign == '-' || open_sign == '+' ? 1 : 0));
      if (!at_word(word, "endraw")) continue;
      word = skip_space(word + 6);
      const char close_sign = word < text_.size() ? text_[word] : '\0';
      if (close_sign == '-' || close_sign == '+') ++word;
      if (text_.compare(word, 2, "%}") != 0) continue;
      emit_data(tag, '%');
      advance(word + 2);
      trim_after(close_sign);
      return;
    }
    error("a 'raw' block is never closed with 'endraw'");
  }

  void read_tag(bool variable) {
    add(variable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
    std::string open;  // brackets not yet closed
    for (;;) {
      advance(skip_space(position_));
      if (position_ >= text_.size()) error(variable ? "'{{' is never closed" : "'{%' is never closed");
      if (open.empty() && close_tag(variable)) return;
      const char c = peek(0);
      if (is_digit(c)) {
        read_number();
      } else if (c == '\'' || c == '"') {
        read_string();
      } else if (is_name_start(c)) {
        std::size_t end = position_;
        while (end < text_.size() && is_name_char(text_[end])) ++end;
        add(TokenKind::kName, text_.substr(position_, end - position_));
        advance(end);
      } else {
        read_operator(open);
      }
    }
  }

  bool close_tag(bool variable) {
    const std::string_view mark = variable ? "}}" : "%}";
    char sign = peek(0);
    if (sign != '-' && (sign != '+' || variable)) sign = '\0';
    const std::size_t at = position_ + (sign != '\0' ? 1 : 0);
    if (text_.compare(at, 2, mark) != 0) return false;
    advance(at + 2);
    add(variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
    trim_after(variable && sign == '\0' ? '+' : sign);
    return true;
  }

  void read_operator(std::string& open) {
    static constexpr std::array<std::string_view, 25> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ","};
    for (const std::string_view op : kOperators) {
      if (text_.compare(position_, op.size(), op) != 0) continue;
      const char c = op[0];
      if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) error(fmt::format("unexpected '{}'", c));
        open.pop_back();
      }
      add(TokenKind::kOperator, std::string(op));
      advance(position_ + op.size());
      return;
    }
    error(fmt::format("unexpected character '{}'", peek(0)));
  }

  void read_number() {
    static constexpr std::size_t kMaxDigits = 400;
    std::string digits;
    std::size_t at = position_;
    const auto take_digits = [&] {
      while (at < text_.size() && (is_digit(text_[at]) || text_[at] == '_')) {
        if (text_[at] != '_') digits += text_[at];
        ++at;
      }
    };
    const auto digit_at = [&](std::size_t index) { return index < text_.size() && is_digit(text_[index]); };
    take_digits();
    bool real = false;
    const bool attribute = position_ > 0 && text_[position_ - 1] == '.';  // "x.0.1": items, not a float
    if (!attribute && at < text_.size() && text_[at] == '.' && digit_at(at + 1)) {
      real = true;
      digits += text_[at++];
      take_digits();
    }
    if (!attribute && at < text_.size() && (text_[at] == 'e' || text_[at] == 'E')) {
      const bool sign = at + 1 < text_.size() && (text_[at + 1] == '+' || text_[at + 1] == '-');
      if (digit_at(at + (sign ? 2 : 1))) {
        real = true;
        digits += 'e';
        if (sign) digits += text_[at + 1];
        at += sign ? 2 : 1;
        take_digits();
      }
    }
    if (digits.size() > kMaxDigits) error("a number is too long");
    add(real ? TokenKind::kFloat : TokenKind::kInteger, digits);
    Token& token = tokens_.back();
    const char* last = digits.data() + digits.size();
    const auto result =
        real ? std::from_chars(digits.data(), last, token.real) : std::from_chars(digits.data(), last, token.integer);
    if (result.ec != std::errc()) error(fmt::format("the number {} is out of range", digits));
    advance(at);
  }

  void read_string() {
    const char quote = peek(0);
    std::size_t end = position_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) error("a string is never closed");
    add(TokenKind::kString, unescape(std::string_view(text_).substr(position_ + 1, end - position_ - 1)));
    advance(end + 1);
  }

  std::string unescape(std::string_view raw) const {
    std::string out;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\' || i + 1 >= raw.size()) {
        out += raw[i];
        continue;
      }
      const char c = raw[++i];
      static constexpr std::string_view kFrom = "abfnrtv\\'\"";
      static constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
      if (const auto known = kFrom.find(c); known != std::string_view::npos) {
        out += kTo[known];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_code(raw, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, out);
      } else if (c >= '0' && c <= '7') {
        std::size_t length = 1;
        while (length < 3 && i + length < raw.size() && raw[i + length] >= '0' && raw[i + length] <= '7') ++length;
        --i;
        append_code(raw, i, length, 8, out);
      } else if (c != '\n') {  // a backslash before a newline joins the lines; other escapes stay as written
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  /// Reads `length` digits after raw[i]; leaves i on the last of them.
  void append_code(std::string_view raw, std::size_t& i, std::size_t length, int base, std::string& out) const {
    std::uint32_t code = 0;
    const std::string_view digits = raw.substr(std::min(i + 1, raw.size()), length);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
    const bool whole = digits.size() == length && result.ptr == digits.data() + length;
    if (!whole || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) error("a string holds a bad escape");
    append_utf8(out, code);
    i += length;
  }

  const std::string& name_;
  std::string text_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) { return Lexer(source, name).run(); }

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData: return "text";
    case TokenKind::kVariableBegin: return "'{{'";
    case TokenKind::kVariableEnd: return "'}}'";
    case TokenKind::kBlockBegin: return "'{%'";
    case TokenKind::kBlockEnd: return "'%}'";
    case TokenKind::kString: return "a string";
    case TokenKind::kEnd: return "the end of the template";
    default: return "'" + token.text + "'";
  }
}

}  // namespace gantry::text::jinja
