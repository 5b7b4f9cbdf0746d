#pragma once
// The two halves of the parser: expressions (jinja_parser_expression.cpp) and statements (jinja_parser.cpp).
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/text/jinja_ast.h"
#include "gantry/text/jinja_lexer.h"

namespace gantry::text::jinja {

class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)), name_(name) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool skip_operator(std::string_view which);
  bool skip_name(std::string_view which);
  void expect_operator(std::string_view which);
  void expect(TokenKind kind, std::string_view what);
  std::string expect_name(std::string_view what);
  [[noreturn]] void error(int line, std::string_view what) const;

 private:
  std::vector<Token> tokens_;
  const std::string& name_;
  std::size_t position_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& stream) : stream_(stream) {}

  /// A full expression, with an inline `if` unless told otherwise.
  ExpressionPtr parse_expression(bool with_conditional = true);
  /// Expressions separated by commas become a tuple.
  ExpressionPtr parse_tuple(bool with_conditional = true);
  /// What `set` and `for` assign to: a name, a tuple of names, or namespace.attribute.
  ExpressionPtr parse_target(bool allow_attribute);
  /// `| name(arguments)` once or more, over `value` (null: over the body of a block). The stream stands at the name.
  ExpressionPtr parse_filters(ExpressionPtr value, bool first_has_pipe);
  ExpressionPtr parse_call_expression();

  /// Whether the names varargs, kwargs and caller were read since the last reset; macros need to know.
  struct SpecialNames {
    bool varargs = false, kwargs = false, caller = false;
  };
  SpecialNames special_names;

 private:
  ExpressionPtr make(ExpressionKind kind, int line) const;
  void deepen(Expression& parent, const Expression& child) const;
  void adopt(Expression& parent, ExpressionPtr child) const;
  ExpressionPtr binary(ExpressionKind kind, Operator op, ExpressionPtr left, ExpressionPtr right, int line) const;
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filter = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name(Token token);
  ExpressionPtr parse_brackets();
  ExpressionPtr parse_dict(int line);
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filter_chain(ExpressionPtr node);
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  void parse_arguments(Expression& node);
  bool at_tuple_end() const;
  void enter();

  TokenStream& stream_;
  int recursion_ = 0;
  friend class RecursionGuard;
};

}  // namespace gantry::text::jinja
