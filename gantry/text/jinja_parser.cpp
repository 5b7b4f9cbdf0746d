#include <array>
#include <initializer_list>

#include "gantry/text/jinja_parser_internal.h"

namespace gantry::text::jinja {
namespace {

constexpr int kMaxBlockDepth = 60;

class TemplateParser {
 public:
  TemplateParser(std::string_view source, const std::string& name)
      : stream_(tokenize(source, name), name), expressions_(stream_) {}

  Block parse() { return parse_body({}, "", 0); }

 private:
  static StatementPtr make(StatementKind kind, int line) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  /// Statements up to a tag that starts with one of `ends`; the stream is left at that word. `opener` names the block
  /// that is being closed, opened on `opened_line`.
  Block parse_body(std::initializer_list<std::string_view> ends, std::string_view opener, int opened_line) {
    if (++depth_ > kMaxBlockDepth) stream_.error(stream_.current().line, "blocks nest too deeply");
    Block body;
    for (;;) {
      const Token token = stream_.next();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() != 0) {
          stream_.error(opened_line, fmt::format("'{}' is never closed with '{}'", opener, *(ends.end() - 1)));
        }
        break;
      }
      if (token.kind == TokenKind::kData) {
        body.push_back(make(StatementKind::kText, token.line));
        body.back()->text = token.text;
      } else if (token.kind == TokenKind::kVariableBegin) {
        body.push_back(make(StatementKind::kPrint, token.line));
        body.back()->value = expressions_.parse_tuple();
        stream_.expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        bool closes = false;
        for (const std::string_view end : ends) closes |= stream_.current().is_name(end);
        if (closes) break;
        if (StatementPtr statement = parse_statement()) body.push_back(std::move(statement));
        stream_.expect(TokenKind::kBlockEnd, "'%}'");
      }
    }
    --depth_;
    return body;
  }

  void end_tag() { stream_.expect(TokenKind::kBlockEnd, "'%}'"); }

  StatementPtr parse_statement() {
    using Parse = StatementPtr (TemplateParser::*)(int);
    static constexpr std::array<std::pair<std::string_view, Parse>, 10> kStatements = {
        {{"if", &TemplateParser::parse_if},
         {"for", &TemplateParser::parse_for},
         {"set", &TemplateParser::parse_set},
         {"macro", &TemplateParser::parse_macro},
         {"call", &TemplateParser::parse_call},
         {"filter", &TemplateParser::parse_filter},
         {"with", &TemplateParser::parse_with},
         {"generation", &TemplateParser::parse_generation},
         {"break", &TemplateParser::parse_break},
         {"continue", &TemplateParser::parse_continue}}};
    const int line = stream_.current().line;
    const std::string word = stream_.expect_name("a statement");
    for (const auto& [name, parse] : kStatements) {
      if (word == name) return (this->*parse)(line);
    }
    if (word.rfind("end", 0) == 0 || word == "else" || word == "elif") {
      stream_.error(line, fmt::format("'{}' closes nothing that is open", word));
    }
    stream_.error(line, fmt::format("the statement '{}' is not supported; chat templates use if, for, set, macro, "
                                    "call, filter, with, generation, break and continue",
                                    word));
  }

  StatementPtr parse_if(int line) {
    auto node = make(StatementKind::kIf, line);
    for (;;) {
      Branch branch;
      branch.condition = expressions_.parse_tuple(false);
      end_tag();
      branch.body = parse_body({"elif", "else", "endif"}, "if", line);
      node->branches.push_back(std::move(branch));
      if (stream_.skip_name("elif")) continue;
      if (stream_.skip_name("else")) {
        end_tag();
        node->branches.push_back({nullptr, parse_body({"endif"}, "if", line)});
      }
      stream_.next();
      return node;
    }
  }

  StatementPtr parse_for(int line) {
    auto node = make(StatementKind::kFor, line);
    node->target = expressions_.parse_target(false);
    if (!stream_.skip_name("in")) {
      stream_.error(line, fmt::format("expected 'in', found {}", describe(stream_.current())));
    }
    node->value = expressions_.parse_tuple(false);
    if (stream_.skip_name("if")) node->condition = expressions_.parse_expression();
    if (stream_.current().is_name("recursive")) stream_.error(line, "recursive loops are not supported");
    end_tag();
    ++loops_;
    node->body = parse_body({"else", "endfor"}, "for", line);
    --loops_;
    if (stream_.skip_name("else")) {
      end_tag();
      node->otherwise = parse_body({"endfor"}, "for", line);
    }
    stream_.next();
    return node;
  }

  StatementPtr parse_set(int line) {
    auto node = make(StatementKind::kSet, line);
    node->target = expressions_.parse_target(true);
    if (stream_.skip_operator("=")) {
      node->value = expressions_.parse_tuple();
      return node;
    }
    node->kind = StatementKind::kSetBlock;
    if (stream_.current().is_operator("|")) node->value = expressions_.parse_filters(nullptr, true);
    end_tag();
    node->body = parse_body({"endset"}, "set", line);
    stream_.next();
    return node;
  }

  void parse_parameters(Statement& node) {
    stream_.expect_operator("(");
    while (!stream_.current().is_operator(")")) {
      if (!node.parameters.empty()) stream_.expect_operator(",");
      if (stream_.current().is_operator(")")) break;
      Parameter parameter;
      parameter.name = stream_.expect_name("the name of a parameter");
      if (stream_.skip_operator("=")) {
        parameter.fallback = expressions_.parse_expression();
      } else if (!node.parameters.empty() && node.parameters.back().fallback != nullptr) {
        stream_.error(node.line, fmt::format("parameter '{}' without a default follows one with", parameter.name));
      }
      node.parameters.push_back(std::move(parameter));
    }
    stream_.expect_operator(")");
  }

  /// Body of a macro or call block, with a note of the special names that it reads.
  void parse_macro_body(Statement& node, std::string_view end, std::string_view opener) {
    const auto outer = std::exchange(expressions_.special_names, {});
    const int outer_loops = std::exchange(loops_, 0);
    end_tag();
    node.body = parse_body({end}, opener, node.line);
    stream_.next();
    node.takes_varargs = expressions_.special_names.varargs;
    node.takes_kwargs = expressions_.special_names.kwargs;
    node.takes_caller = expressions_.special_names.caller;
    expressions_.special_names = outer;
    loops_ = outer_loops;
  }

  StatementPtr parse_macro(int line) {
    auto node = make(StatementKind::kMacro, line);
    node->text = stream_.expect_name("the name of the macro");
    parse_parameters(*node);
    parse_macro_body(*node, "endmacro", "macro");
    return node;
  }

  StatementPtr parse_call(int line) {
    auto node = make(StatementKind::kCallBlock, line);
    if (stream_.current().is_operator("(")) parse_parameters(*node);
    node->value = expressions_.parse_call_expression();
    parse_macro_body(*node, "endcall", "call");
    return node;
  }

  StatementPtr parse_filter(int line) {
    auto node = make(StatementKind::kFilterBlock, line);
    node->value = expressions_.parse_filters(nullptr, false);
    end_tag();
    node->body = parse_body({"endfilter"}, "filter", line);
    stream_.next();
    return node;
  }

  StatementPtr parse_with(int line) {
    auto node = make(StatementKind::kWith, line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!node->assignments.empty()) stream_.expect_operator(",");
      ExpressionPtr target = expressions_.parse_target(false);
      stream_.expect_operator("=");
      node->assignments.emplace_back(std::move(target), expressions_.parse_expression());
    }
    end_tag();
    node->body = parse_body({"endwith"}, "with", line);
    stream_.next();
    return node;
  }

  StatementPtr parse_generation(int line) {
    auto node = make(StatementKind::kGeneration, line);
    end_tag();
    const int outer_loops = std::exchange(loops_, 0);
    node->body = parse_body({"endgeneration"}, "generation", line);
    loops_ = outer_loops;
    stream_.next();
    return node;
  }

  StatementPtr parse_break(int line) { return parse_jump(StatementKind::kBreak, "break", line); }
  StatementPtr parse_continue(int line) { return parse_jump(StatementKind::kContinue, "continue", line); }
  StatementPtr parse_jump(StatementKind kind, std::string_view word, int line) {
    if (loops_ == 0) stream_.error(line, fmt::format("'{}' stands outside of a loop", word));
    return make(kind, line);
  }

  TokenStream stream_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source, const std::string& name) { return TemplateParser(source, name).parse(); }

}  // namespace gantry::text::jinja
