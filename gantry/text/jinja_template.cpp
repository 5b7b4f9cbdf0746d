#include "gantry/text/jinja_template.h"

#include "gantry/text/jinja_ast.h"
#include "gantry/text/jinja_interpreter.h"

namespace gantry::text::jinja {
namespace {

constexpr std::size_t kMaxSource = std::size_t{4} << 20;

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  return parts;
}

}  // namespace

struct Template::State {
  std::string name;
  Block block;
};

Template::Template(std::string_view source, std::string name) : state_(std::make_unique<State>()) {
  state_->name = std::move(name);
  GANTRY_CHECK(source.size() <= kMaxSource, "{}: {} bytes, more than the {} a template may have", state_->name,
               source.size(), kMaxSource);
  state_->block = parse_template(source, state_->name);
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Rendered Template::render(const base::OrderedJson& variables, const std::optional<std::tm>& now,
                          const RenderLimits& limits) const {
  GANTRY_CHECK(variables.is_object(), "{}: the variables must be an object, found {}", state_->name,
               variables.type_name());
  Interpreter interpreter(Budget(limits.max_steps, limits.max_bytes), now ? *now : local_time());
  try {
    const Value values = Value::from_json(variables);
    Rendered result;
    result.text = interpreter.run(state_->block, values.as_dict());
    result.generation = interpreter.generation_ranges();
    return result;
  } catch (const TemplateError& error) {
    base::fail_input("{}, line {}: {}", state_->name, interpreter.line(), error.what());
  }
}

}  // namespace gantry::text::jinja
