#pragma once
// Cuts a template into tokens and applies the whitespace rules: `-` and `+` markers, and trim_blocks and lstrip_blocks,
// both on, as transformers renders chat templates. Comments and raw blocks are gone after this stage.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::text::jinja {

enum class TokenKind {
  kData,           // text outside of tags
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,  // `text` holds the unescaped contents
  kInteger,
  kFloat,
  kOperator,  // `text` holds the operator
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;
  std::int64_t integer = 0;
  double real = 0;

  bool is_operator(std::string_view which) const { return kind == TokenKind::kOperator && text == which; }
  bool is_name(std::string_view which) const { return kind == TokenKind::kName && text == which; }
};

/// Throws InputError "<name>, line N: ..." for text that is no template.
std::vector<Token> tokenize(std::string_view source, const std::string& name);

/// How a token is named in messages.
std::string describe(const Token& token);

}  // namespace gantry::text::jinja
