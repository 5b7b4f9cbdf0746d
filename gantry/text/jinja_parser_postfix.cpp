// What may follow an operand: attributes, subscripts, calls, filters and tests.
#include "gantry/text/jinja_parser_internal.h"

namespace gantry::text::jinja {

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  for (;;) {
    if (stream_.current().is_operator(".") || stream_.current().is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (stream_.current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filter_chain(ExpressionPtr node) {
  for (;;) {
    if (stream_.current().is_operator("|")) {
      node = parse_filters(std::move(node), true);
    } else if (stream_.current().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.current().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr value, bool first_has_pipe) {
  bool take = first_has_pipe ? stream_.skip_operator("|") : true;
  while (take) {
    auto node = make(ExpressionKind::kFilter, stream_.current().line);
    node->text = stream_.expect_name("the name of a filter");
    adopt(*node, std::move(value));
    if (stream_.current().is_operator("(")) parse_arguments(*node);
    value = std::move(node);
    take = stream_.skip_operator("|");
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr value) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  auto node = make(ExpressionKind::kTest, line);
  node->text = stream_.expect_name("the name of a test");
  adopt(*node, std::move(value));
  const Token& token = stream_.current();
  const bool word = token.kind == TokenKind::kName && token.text != "else" && token.text != "or" && token.text != "and";
  if (token.is_operator("(")) {
    parse_arguments(*node);
  } else if (token.is_name("is")) {
    stream_.error(token.line, "tests with 'is' cannot be chained");
  } else if (word || token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
             token.kind == TokenKind::kFloat || token.is_operator("[") || token.is_operator("{")) {
    // `x is defined if y`, `x is defined and y`: those words end the test; any other begins its argument.
    if (!token.is_name("if") && !token.is_name("in") && !token.is_name("not")) {
      node->arguments.push_back(parse_postfix(parse_primary()));
      deepen(*node, *node->arguments.back());
    }
  }
  if (!negated) return node;
  auto negation = make(ExpressionKind::kNot, line);
  adopt(*negation, std::move(node));
  return negation;
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr value) {
  const Token token = stream_.next();
  if (token.text == ".") {
    if (stream_.current().kind == TokenKind::kInteger) {
      auto index = make(ExpressionKind::kConstant, token.line);
      index->constant = Value::integer(stream_.next().integer);
      return binary(ExpressionKind::kIndex, Operator::kAdd, std::move(value), std::move(index), token.line);
    }
    auto node = make(ExpressionKind::kAttribute, token.line);
    node->text = stream_.expect_name("a name after '.'");
    adopt(*node, std::move(value));
    return node;
  }
  ExpressionPtr parts[3];
  int count = 0;
  bool slice = false;
  for (;;) {
    const Token& next = stream_.current();
    if (next.is_operator(":")) {
      stream_.next();
      slice = true;
      if (++count > 2) stream_.error(next.line, "a slice has at most three parts");
    } else if (next.is_operator("]")) {
      break;
    } else if (parts[count] != nullptr) {
      stream_.error(next.line, fmt::format("expected ']', found {}", describe(next)));
    } else {
      parts[count] = parse_expression();
    }
  }
  stream_.expect_operator("]");
  if (!slice && parts[0] == nullptr) stream_.error(token.line, "an index is missing between '[' and ']'");
  auto node = make(slice ? ExpressionKind::kSlice : ExpressionKind::kIndex, token.line);
  adopt(*node, std::move(value));
  for (int part = 0; part < (slice ? 3 : 1); ++part) adopt(*node, std::move(parts[part]));
  return node;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr callee) {
  auto node = make(ExpressionKind::kCall, stream_.current().line);
  adopt(*node, std::move(callee));
  parse_arguments(*node);
  return node;
}

ExpressionPtr ExpressionParser::parse_call_expression() {
  ExpressionPtr node = parse_unary(false);
  if (node->kind != ExpressionKind::kCall) stream_.error(node->line, "expected a call after 'call'");
  return node;
}

void ExpressionParser::parse_arguments(Expression& node) {
  stream_.expect_operator("(");
  bool first = true;
  while (!stream_.current().is_operator(")")) {
    if (!first) stream_.expect_operator(",");
    first = false;
    if (stream_.current().is_operator(")")) break;
    if (stream_.current().is_operator("*") || stream_.current().is_operator("**")) {
      stream_.error(stream_.current().line, "'*' and '**' arguments are not supported");
    }
    ExpressionPtr argument;
    if (stream_.current().kind == TokenKind::kName && stream_.ahead().is_operator("=")) {
      std::string name = stream_.next().text;
      stream_.next();
      argument = parse_expression();
      deepen(node, *argument);
      node.keywords.emplace_back(std::move(name), std::move(argument));
    } else {
      if (!node.keywords.empty()) stream_.error(stream_.current().line, "a positional argument follows a named one");
      argument = parse_expression();
      deepen(node, *argument);
      node.arguments.push_back(std::move(argument));
    }
  }
  stream_.expect_operator(")");
}

}  // namespace gantry::text::jinja
