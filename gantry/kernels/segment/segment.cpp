#include "gantry/kernels/segment/segment.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/kernels/once_differentiable.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;
using Body = std::function<at::Tensor(const at::Tensor&)>;

struct Autocast {
  bool enabled = false;
  at::ScalarType type = at::kFloat;

  static Autocast current(at::DeviceType device) {
    if (!at::autocast::is_autocast_available(device)) return {};
    return {at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device)};
  }
};

// In the backward pass autocast is off as a rule, and the second run would compute in other types than the first. The
// cache of cast weights stays off in both runs: what the second one put there would outlive the step.
class AutocastGuard {
 public:
  AutocastGuard(at::DeviceType device, const Autocast& wanted)
      : device_(device), previous_(Autocast::current(device)), cached_(at::autocast::is_autocast_cache_enabled()) {
    set(wanted, false);
  }
  ~AutocastGuard() { set(previous_, cached_); }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  void set(const Autocast& state, bool cached) {
    if (!at::autocast::is_autocast_available(device_)) return;
    at::autocast::set_autocast_enabled(device_, state.enabled);
    at::autocast::set_autocast_dtype(device_, state.type);
    at::autocast::set_autocast_cache_enabled(cached);
  }

  at::DeviceType device_;
  Autocast previous_;
  bool cached_;
};

// A tensor's gradient hooks fire when its gradient leaves the segment; they must not when it is found inside.
class HooksAway {
 public:
  explicit HooksAway(const tensor_list& tensors) {
    for (const at::Tensor& x : tensors) {
      nodes_.push_back({torch::autograd::impl::gradient_edge(x).function, {}, {}});
      swap(nodes_.back());
    }
  }
  ~HooksAway() {
    for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) swap(*node);
  }
  HooksAway(const HooksAway&) = delete;
  HooksAway& operator=(const HooksAway&) = delete;

 private:
  struct Hooks {
    decltype(torch::autograd::Edge::function) node;  // the pointer type changed between releases of libtorch
    std::vector<std::unique_ptr<torch::autograd::FunctionPreHook>> plain;
    std::unordered_map<std::size_t, std::unique_ptr<torch::autograd::FunctionPreHook>> retaining;
  };
  static void swap(Hooks& hooks) {
    hooks.node->tensor_pre_hooks().swap(hooks.plain);
    hooks.node->retains_grad_hooks().swap(hooks.retaining);
  }

  std::vector<Hooks> nodes_;
};

/// What the backward pass needs besides tensors.
struct Segment : torch::CustomClassHolder {
  Body body;
  KeepInput keep = KeepInput::kTensor;
  std::vector<std::int64_t> sizes;
  at::ScalarType type = at::kFloat;
  at::DeviceType device = at::kCPU;
  Autocast autocast;
};

bool same_place(const torch::autograd::Edge& edge, const at::Tensor& x) {
  return x.requires_grad() && edge == torch::autograd::impl::gradient_edge(x);
}

// Without this a forgotten parameter would silently get no gradient.
void check_listed(const at::Tensor& y, at::TensorList listed) {
  std::vector<torch::autograd::Edge> open{torch::autograd::impl::gradient_edge(y)};
  std::unordered_set<const torch::autograd::Node*> seen;
  while (!open.empty()) {
    const torch::autograd::Edge edge = open.back();
    open.pop_back();
    const auto same = [&](const at::Tensor& x) { return same_place(edge, x); };
    if (!edge.is_valid() || std::any_of(listed.begin(), listed.end(), same)) continue;
    const auto* leaf = dynamic_cast<const torch::autograd::AccumulateGrad*>(edge.function.get());
    if (leaf != nullptr) {
      base::fail("rerun_segment: the body reads a leaf of shape {} that wants a gradient; list it in `parameters`",
                 c10::str(leaf->variable.sizes()));
    }
    if (!seen.insert(edge.function.get()).second) continue;
    for (const auto& next : edge.function->next_edges()) open.push_back(next);
  }
}

struct SegmentFunction : torch::autograd::Function<SegmentFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                            const c10::intrusive_ptr<Segment>& segment) {
    const bool int8 = segment->keep == KeepInput::kInt8;
    // Before the body, which may then take x apart.
    const Stashed packed = int8 ? stash(x) : Stashed{};
    const bool versioned = !int8 && !x.is_inference();
    const auto version = versioned ? x._version() : 0;
    at::Tensor y;
    {
      const AutocastGuard autocast(segment->device, segment->autocast);
      y = segment->body(x);
    }
    GANTRY_CHECK(y.defined(), "rerun_segment: the body returned an undefined tensor");
    GANTRY_CHECK(!versioned || x._version() == version, "rerun_segment: the body writes into its input");
    tensor_list saved{int8 ? packed.values : x, packed.scales};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["segment"] = at::IValue::make_capsule(segment);
    return y.detach();  // no view, so that the next operator may work in place
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& gradients) {
    return first_order("rerun_segment", gradients, [&](const auto& dy) { return differentiate(ctx, dy[0]); });
  }

  static tensor_list differentiate(AutogradContext* ctx, const at::Tensor& gradient) {
    const tensor_list saved = ctx->get_saved_variables();
    const auto holder = ctx->saved_data["segment"].toCapsule();
    const auto& segment = static_cast<const Segment&>(*holder);
    const at::Tensor x = segment.keep == KeepInput::kInt8 ? unstash({saved[0], saved[1], segment.sizes, segment.type})
                                                          : saved[0].detach();
    x.requires_grad_(ctx->needs_input_grad(0));
    tensor_list listed{x};
    listed.insert(listed.end(), saved.begin() + 2, saved.end());

    at::Tensor y;
    {
      const at::AutoGradMode with_graph(true);
      const AutocastGuard autocast(segment.device, segment.autocast);
      y = segment.body(x);
    }
    tensor_list result(listed.size() + 1);  // the segment itself is the last argument
    if (!y.requires_grad()) return result;
    check_listed(y, listed);
    std::vector<std::size_t> places;
    tensor_list wanted;
    for (std::size_t i = 0; i < listed.size(); ++i) {
      if (!ctx->needs_input_grad(i)) continue;
      places.push_back(i);
      wanted.push_back(listed[i]);
    }
    const HooksAway away(wanted);
    const tensor_list found = torch::autograd::grad({y}, wanted, {gradient}, false, false, true);
    for (std::size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
    return result;
  }
};

}  // namespace

at::Tensor rerun_segment(const Body& body, const at::Tensor& x, at::TensorList parameters, KeepInput keep) {
  GANTRY_CHECK(keep == KeepInput::kTensor || at::isFloatingType(x.scalar_type()),
               "rerun_segment: int8 keeps floating-point inputs only, got {}", c10::toString(x.scalar_type()));
  tensor_list listed;
  bool wanted = x.requires_grad();
  for (const at::Tensor& parameter : parameters) {
    const auto same = [&](const at::Tensor& other) { return other.is_same(parameter); };
    if (!parameter.defined() || std::any_of(listed.begin(), listed.end(), same)) continue;
    listed.push_back(parameter);
    wanted = wanted || parameter.requires_grad();
  }
  if (!wanted || !at::GradMode::is_enabled()) return body(x);
  auto segment = c10::make_intrusive<Segment>();
  segment->body = body;
  segment->keep = keep;
  segment->sizes = x.sizes().vec();
  segment->type = x.scalar_type();
  segment->device = x.device().type();
  segment->autocast = Autocast::current(segment->device);
  return SegmentFunction::apply(x, at::TensorList(listed), segment);
}

}  // namespace gantry::kernels
