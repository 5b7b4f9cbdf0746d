#pragma once
// A Jinja2 template: the subset that chat templates are written in, with the settings of transformers (trim_blocks,
// lstrip_blocks, loop controls, `generation` blocks, tojson without HTML escapes). Templates are untrusted: they reach
// nothing but their variables, and a render is bounded in steps, bytes and depth.
//
// Differences from Jinja2: integers have 64 bits; no include, import, extends or recursive loops; no * and **
// arguments; list.append works (the sandbox of transformers forbids it); a range or dict view prints as a list.
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text::jinja {

struct RenderLimits {
  std::int64_t max_steps = 50'000'000;               // operations, loop passes included
  std::int64_t max_bytes = std::int64_t{512} << 20;  // text and lists made, intermediate ones included
};

struct Rendered {
  std::string text;
  /// Byte ranges [first, second) of `text` that came from {% generation %} blocks.
  std::vector<std::pair<std::size_t, std::size_t>> generation;
};

/// Immutable; may render from several threads at once.
class Template {
 public:
  /// Parses. Throws InputError "<name>, line N: ..." naming what is wrong.
  explicit Template(std::string_view source, std::string name = "template");
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  /// Renders with the members of the object `variables` as names. `now` is the time that strftime_now() tells; unset,
  /// the local time. Throws InputError "<name>, line N: ..." when the template fails, refuses or exceeds a limit.
  Rendered render(const base::OrderedJson& variables, const std::optional<std::tm>& now = {},
                  const RenderLimits& limits = {}) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::text::jinja
