#pragma once
#include "gantry/text/jinja_interpreter.h"

namespace gantry::text::jinja {

// Nested evaluations and macro calls together; keeps the stack under about a megabyte.
constexpr int kMaxCallDepth = 600;

class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter& interpreter) : depth_(interpreter.depth_) {
    if (depth_ >= kMaxCallDepth) template_error("the template recurses too deeply");
    ++depth_;
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

/// Enters a new scope below `parent` and returns to the old one at the end.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(interpreter), outer_(interpreter.scope_) {
    interpreter.scope_ = std::make_shared<Scope>();
    interpreter.scope_->parent = std::move(parent);
  }
  ~ScopeGuard() { interpreter_.scope_ = std::move(outer_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& interpreter_;
  std::shared_ptr<Scope> outer_;
};

/// loop.index and its siblings.
Value loop_attribute(const LoopObject& loop, std::string_view name);

}  // namespace gantry::text::jinja
