#pragma once
// The syntax tree of a template. It is immutable after parsing and may be rendered from several threads at once.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gantry/text/jinja_value.h"

namespace gantry::text::jinja {

struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using StatementPtr = std::unique_ptr<Statement>;
using Block = std::vector<StatementPtr>;

enum class ExpressionKind {
  kConstant,     // constant
  kName,         // text
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value ...
  kNot,          // children[0]
  kNegate,       // children[0]
  kPlus,         // children[0]
  kBinary,       // children[0] op children[1]
  kConcat,       // children, joined as strings
  kCompare,      // children[0] operators[0] children[1] operators[1] children[2] ...
  kAnd,          // children[0], children[1]
  kOr,           // children[0], children[1]
  kConditional,  // children: condition, value, optional alternative
  kAttribute,    // children[0] . text
  kIndex,        // children[0] [ children[1] ]
  kSlice,        // children: value, start, stop, step; each of the last three may be null
  kCall,         // children[0] ( arguments )
  kFilter,       // children[0] | text ( arguments ); children[0] is null in a filter block
  kTest,         // children[0] is text ( arguments )
};

enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 1;
  int depth = 1;  // height of the tree below, which bounds recursion
  std::string text;
  Value constant;
  Operator op = Operator::kAdd;
  std::vector<Operator> operators;
  std::vector<ExpressionPtr> children;
  std::vector<ExpressionPtr> arguments;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
};

enum class StatementKind {
  kText,         // text
  kPrint,        // value
  kIf,           // branches; an `else` has a null condition
  kFor,          // targets in value over `iterable` if `condition`: body, otherwise
  kSet,          // target = value
  kSetBlock,     // target = rendered body, through filters in value if any
  kMacro,        // text(parameters): body
  kCallBlock,    // value is the call; parameters and body make `caller`
  kFilterBlock,  // value is a chain of kFilter over the rendered body
  kWith,         // assignments, body
  kGeneration,   // body, whose place in the output is recorded
  kBreak,
  kContinue,
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // may be null
};

struct Branch {
  ExpressionPtr condition;
  Block body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 1;
  std::string text;
  ExpressionPtr target;  // kName, kTuple of targets, or kAttribute of a name (namespaces)
  ExpressionPtr value;
  ExpressionPtr condition;
  Block body;
  Block otherwise;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;
  bool takes_varargs = false;
  bool takes_kwargs = false;
  bool takes_caller = false;
};

/// Parses a template; throws InputError "<name>, line N: ...".
Block parse_template(std::string_view source, const std::string& name);

}  // namespace gantry::text::jinja
