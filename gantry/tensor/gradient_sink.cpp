#include "gantry/tensor/gradient_sink.h"

#include <atomic>

#include "gantry/base/check.h"

namespace gantry::tensor {
namespace {

std::atomic<GradientSinks*> active_sinks{nullptr};

}  // namespace

void GradientSinks::add(const at::Tensor& parameter, at::Tensor gradient) {
  GANTRY_CHECK(parameter.sizes() == gradient.sizes(), "gradient slot: expected shape {}, got {}",
               c10::str(parameter.sizes()), c10::str(gradient.sizes()));
  slots_[parameter.unsafeGetTensorImpl()] = {std::move(gradient), false};
}

GradientSlot* GradientSinks::find(const at::Tensor& parameter) {
  const auto found = slots_.find(parameter.unsafeGetTensorImpl());
  return found == slots_.end() ? nullptr : &found->second;
}

void GradientSinks::begin_step() {
  for (auto& [parameter, slot] : slots_) slot.written = false;
}

void GradientSinks::finish_step() {
  for (auto& [parameter, slot] : slots_) {
    if (!slot.written) slot.gradient.zero_();
  }
}

GradientSinks::Guard::Guard(GradientSinks& sinks) : previous_(active_sinks.exchange(&sinks)) {}
GradientSinks::Guard::~Guard() { active_sinks.store(previous_); }
GradientSinks* GradientSinks::active() { return active_sinks.load(std::memory_order_relaxed); }

void accumulate(GradientSlot& slot, const at::Tensor& value) {
  if (slot.written) {
    slot.gradient.add_(value);
  } else {
    slot.gradient.copy_(value);
  }
  slot.written = true;
}

void accumulate_product(GradientSlot& slot, const at::Tensor& a, const at::Tensor& b) {
  if (slot.gradient.scalar_type() != a.scalar_type()) {
    accumulate(slot, at::mm(a, b));
    return;
  }
  if (slot.written) {
    slot.gradient.addmm_(a, b);
  } else {
    at::mm_out(slot.gradient, a, b);
  }
  slot.written = true;
}

}  // namespace gantry::tensor
