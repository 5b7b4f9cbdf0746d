#include <algorithm>
#include <array>

#include "gantry/base/check.h"
#include "gantry/text/jinja_parser_internal.h"

namespace gantry::text::jinja {
namespace {

// Bounds the stack of parser, evaluator and destructor alike.
constexpr int kMaxTreeDepth = 200;
constexpr int kMaxParserDepth = 100;

}  // namespace

class RecursionGuard {
 public:
  explicit RecursionGuard(ExpressionParser& parser) : parser_(parser) { parser_.enter(); }
  ~RecursionGuard() { --parser_.recursion_; }
  RecursionGuard(const RecursionGuard&) = delete;
  RecursionGuard& operator=(const RecursionGuard&) = delete;

 private:
  ExpressionParser& parser_;
};

Token TokenStream::next() {
  Token token = tokens_[position_];
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool TokenStream::skip_operator(std::string_view which) {
  if (!current().is_operator(which)) return false;
  next();
  return true;
}

bool TokenStream::skip_name(std::string_view which) {
  if (!current().is_name(which)) return false;
  next();
  return true;
}

void TokenStream::expect_operator(std::string_view which) {
  if (skip_operator(which)) return;
  error(current().line, fmt::format("expected '{}', found {}", which, describe(current())));
}

void TokenStream::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) {
    error(current().line, fmt::format("expected {}, found {}", what, describe(current())));
  }
  next();
}

std::string TokenStream::expect_name(std::string_view what) {
  if (current().kind != TokenKind::kName) {
    error(current().line, fmt::format("expected {}, found {}", what, describe(current())));
  }
  return next().text;
}

void TokenStream::error(int line, std::string_view what) const {
  base::fail_input("{}, line {}: {}", name_, line, what);
}

void ExpressionParser::enter() {
  if (++recursion_ > kMaxParserDepth) {
    --recursion_;
    stream_.error(stream_.current().line, "the expression nests too deeply");
  }
}

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::deepen(Expression& parent, const Expression& child) const {
  parent.depth = std::max(parent.depth, child.depth + 1);
  if (parent.depth > kMaxTreeDepth) stream_.error(parent.line, "the expression is too long; split it with 'set'");
}

void ExpressionParser::adopt(Expression& parent, ExpressionPtr child) const {
  if (child != nullptr) deepen(parent, *child);
  parent.children.push_back(std::move(child));
}

ExpressionPtr ExpressionParser::binary(ExpressionKind kind, Operator op, ExpressionPtr left, ExpressionPtr right,
                                       int line) const {
  auto node = make(kind, line);
  node->op = op;
  adopt(*node, std::move(left));
  adopt(*node, std::move(right));
  return node;
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  const RecursionGuard guard(*this);
  ExpressionPtr value = parse_or();
  while (with_conditional && stream_.current().is_name("if")) {
    auto node = make(ExpressionKind::kConditional, stream_.next().line);
    adopt(*node, parse_or());
    adopt(*node, std::move(value));
    if (stream_.skip_name("else")) adopt(*node, parse_expression());
    value = std::move(node);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  while (stream_.current().is_name("or")) {
    const int line = stream_.next().line;
    left = binary(ExpressionKind::kOr, Operator::kAdd, std::move(left), parse_and(), line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  while (stream_.current().is_name("and")) {
    const int line = stream_.next().line;
    left = binary(ExpressionKind::kAnd, Operator::kAdd, std::move(left), parse_not(), line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!stream_.current().is_name("not")) return parse_compare();
  const RecursionGuard guard(*this);
  auto node = make(ExpressionKind::kNot, stream_.next().line);
  adopt(*node, parse_not());
  return node;
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr std::array<std::pair<std::string_view, Operator>, 6> kOperators = {
      {{"==", Operator::kEqual},
       {"!=", Operator::kNotEqual},
       {"<", Operator::kLess},
       {"<=", Operator::kLessEqual},
       {">", Operator::kGreater},
       {">=", Operator::kGreaterEqual}}};
  const int line = stream_.current().line;
  ExpressionPtr first = parse_sum();
  ExpressionPtr node;
  for (;;) {
    const Token& token = stream_.current();
    Operator op = Operator::kIn;
    if (token.kind == TokenKind::kOperator) {
      const auto found = std::find_if(kOperators.begin(), kOperators.end(),
                                      [&](const auto& entry) { return entry.first == token.text; });
      if (found == kOperators.end()) break;
      op = found->second;
    } else if (token.is_name("not") && stream_.ahead().is_name("in")) {
      stream_.next();
      op = Operator::kNotIn;
    } else if (!token.is_name("in")) {
      break;
    }
    stream_.next();
    if (node == nullptr) {
      node = make(ExpressionKind::kCompare, line);
      adopt(*node, std::move(first));
    }
    node->operators.push_back(op);
    adopt(*node, parse_sum());
  }
  return node != nullptr ? std::move(node) : std::move(first);
}

ExpressionPtr ExpressionParser::parse_sum() {
  ExpressionPtr left = parse_concat();
  while (stream_.current().is_operator("+") || stream_.current().is_operator("-")) {
    const Token token = stream_.next();
    const Operator op = token.text == "+" ? Operator::kAdd : Operator::kSubtract;
    left = binary(ExpressionKind::kBinary, op, std::move(left), parse_concat(), token.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concat() {
  ExpressionPtr first = parse_product();
  if (!stream_.current().is_operator("~")) return first;
  auto node = make(ExpressionKind::kConcat, stream_.current().line);
  adopt(*node, std::move(first));
  while (stream_.skip_operator("~")) adopt(*node, parse_product());
  return node;
}

ExpressionPtr ExpressionParser::parse_product() {
  static constexpr std::array<std::pair<std::string_view, Operator>, 4> kOperators = {
      {{"*", Operator::kMultiply}, {"/", Operator::kDivide}, {"//", Operator::kFloorDivide}, {"%", Operator::kModulo}}};
  ExpressionPtr left = parse_power();
  for (;;) {
    if (stream_.current().kind != TokenKind::kOperator) return left;
    const auto found = std::find_if(kOperators.begin(), kOperators.end(),
                                    [&](const auto& entry) { return entry.first == stream_.current().text; });
    if (found == kOperators.end()) return left;
    const int line = stream_.next().line;
    left = binary(ExpressionKind::kBinary, found->second, std::move(left), parse_power(), line);
  }
}

ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr left = parse_unary();
  while (stream_.current().is_operator("**")) {
    const int line = stream_.next().line;
    left = binary(ExpressionKind::kBinary, Operator::kPower, std::move(left), parse_unary(), line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filter) {
  const RecursionGuard guard(*this);
  ExpressionPtr node;
  if (stream_.current().is_operator("-") || stream_.current().is_operator("+")) {
    const Token token = stream_.next();
    node = make(token.text == "-" ? ExpressionKind::kNegate : ExpressionKind::kPlus, token.line);
    adopt(*node, parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filter_chain(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_name(Token token) {
  static const std::array<std::pair<std::string_view, Value>, 6> kConstants = {{{"true", Value::boolean(true)},
                                                                                {"True", Value::boolean(true)},
                                                                                {"false", Value::boolean(false)},
                                                                                {"False", Value::boolean(false)},
                                                                                {"none", Value::none()},
                                                                                {"None", Value::none()}}};
  for (const auto& [name, value] : kConstants) {
    if (token.text != name) continue;
    auto node = make(ExpressionKind::kConstant, token.line);
    node->constant = value;
    return node;
  }
  special_names.varargs |= token.text == "varargs";
  special_names.kwargs |= token.text == "kwargs";
  special_names.caller |= token.text == "caller";
  auto node = make(ExpressionKind::kName, token.line);
  node->text = std::move(token.text);
  return node;
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = stream_.current();
  auto node = make(ExpressionKind::kConstant, token.line);
  switch (token.kind) {
    case TokenKind::kName: return parse_name(stream_.next());
    case TokenKind::kString: {
      std::string text;
      while (stream_.current().kind == TokenKind::kString) text += stream_.next().text;
      node->constant = Value::string(std::move(text));
      return node;
    }
    case TokenKind::kInteger: node->constant = Value::integer(stream_.next().integer); return node;
    case TokenKind::kFloat: node->constant = Value::real(stream_.next().real); return node;
    default: return parse_brackets();
  }
}

ExpressionPtr ExpressionParser::parse_brackets() {
  const int line = stream_.current().line;
  if (stream_.skip_operator("(")) {
    ExpressionPtr node = stream_.current().is_operator(")") ? make(ExpressionKind::kTuple, line) : parse_tuple();
    stream_.expect_operator(")");
    return node;
  }
  if (stream_.skip_operator("[")) {
    auto node = make(ExpressionKind::kList, line);
    while (!stream_.current().is_operator("]")) {
      if (!node->children.empty()) stream_.expect_operator(",");
      if (stream_.current().is_operator("]")) break;
      adopt(*node, parse_expression());
    }
    stream_.expect_operator("]");
    return node;
  }
  if (stream_.skip_operator("{")) return parse_dict(line);
  stream_.error(line, fmt::format("expected an expression, found {}", describe(stream_.current())));
}

ExpressionPtr ExpressionParser::parse_dict(int line) {
  auto node = make(ExpressionKind::kDict, line);
  while (!stream_.current().is_operator("}")) {
    if (!node->children.empty()) stream_.expect_operator(",");
    if (stream_.current().is_operator("}")) break;
    adopt(*node, parse_expression());
    stream_.expect_operator(":");
    adopt(*node, parse_expression());
  }
  stream_.expect_operator("}");
  return node;
}

bool ExpressionParser::at_tuple_end() const {
  const Token& token = stream_.current();
  return token.kind == TokenKind::kVariableEnd || token.kind == TokenKind::kBlockEnd || token.is_operator(")") ||
         token.is_name("in") || token.is_name("if") || token.is_name("recursive");
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional) {
  const int line = stream_.current().line;
  ExpressionPtr first = parse_expression(with_conditional);
  if (!stream_.current().is_operator(",")) return first;
  auto node = make(ExpressionKind::kTuple, line);
  adopt(*node, std::move(first));
  while (stream_.skip_operator(",") && !at_tuple_end()) adopt(*node, parse_expression(with_conditional));
  return node;
}

ExpressionPtr ExpressionParser::parse_target(bool allow_attribute) {
  const RecursionGuard guard(*this);
  const int line = stream_.current().line;
  const auto parse_one = [&]() -> ExpressionPtr {
    if (stream_.skip_operator("(")) {
      ExpressionPtr inner = parse_target(false);
      stream_.expect_operator(")");
      return inner;
    }
    auto name = make(ExpressionKind::kName, stream_.current().line);
    name->text = stream_.expect_name("a name to assign to");
    return name;
  };
  ExpressionPtr first = parse_one();
  if (allow_attribute && stream_.skip_operator(".")) {
    auto node = make(ExpressionKind::kAttribute, line);
    adopt(*node, std::move(first));
    node->text = stream_.expect_name("an attribute name");
    return node;
  }
  if (!stream_.current().is_operator(",")) return first;
  auto node = make(ExpressionKind::kTuple, line);
  adopt(*node, std::move(first));
  while (stream_.skip_operator(",") && !at_tuple_end() && !stream_.current().is_operator("=")) {
    adopt(*node, parse_one());
  }
  return node;
}

}  // namespace gantry::text::jinja
