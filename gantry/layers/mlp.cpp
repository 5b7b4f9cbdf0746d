#include "gantry/layers/mlp.h"

#include <ATen/ATen.h>

#include <optional>

#include "gantry/base/check.h"
#include "gantry/kernels/activation/activation.h"
#include "gantry/kernels/mlp/mlp.h"
#include "gantry/kernels/segment/segment.h"
#include "gantry/kernels/swiglu/swiglu.h"

namespace gantry::layers {
namespace {

std::optional<kernels::Activation> smooth(MlpActivation activation) {
  switch (activation) {
    case MlpActivation::kSilu: return kernels::Activation::kSilu;
    case MlpActivation::kGeluErf: return kernels::Activation::kGeluErf;
    case MlpActivation::kGeluTanh: return kernels::Activation::kGeluTanh;
    case MlpActivation::kQuickGelu: return kernels::Activation::kQuickGelu;
    case MlpActivation::kRelu: return std::nullopt;
  }
  GANTRY_UNREACHABLE();
}

kernels::MlpMemory kept_by_node(MemoryMode memory) {
  if (memory == MemoryMode::kRerun) return kernels::MlpMemory::kInput;
  return memory == MemoryMode::kInt8 ? kernels::MlpMemory::kInt8 : kernels::MlpMemory::kActivationInput;
}

bool keeps_input_only(MemoryMode memory) { return memory == MemoryMode::kRerun || memory == MemoryMode::kInt8; }

at::Tensor activate_in_place(const at::Tensor& x, MlpActivation activation) {
  const auto kind = smooth(activation);
  return kind ? kernels::activation(x, {.kind = *kind, .overwrite = true}) : at::relu(x);
}

}  // namespace

at::Tensor activate(const at::Tensor& x, MlpActivation activation) {
  const auto kind = smooth(activation);
  return kind ? kernels::activation_reference(x, *kind) : at::relu(x);
}

at::Tensor feed_forward(const at::Tensor& x, const LinearImpl& first, const LinearImpl& second,
                        MlpActivation activation, MemoryMode memory) {
  const auto kind = smooth(activation);
  const bool adapted = first.lora || second.lora;
  const bool fused = memory != MemoryMode::kStore && memory != MemoryMode::kInPlace;
  if (fused && kind && !adapted) {
    return kernels::mlp(x,
                        {.weight1 = first.weight,
                         .bias1 = first.bias,
                         .weight2 = second.weight,
                         .bias2 = second.bias,
                         .layout = first.layout()},
                        *kind, kept_by_node(memory));
  }
  const auto plain = [&first, &second, activation, memory](const at::Tensor& input) {
    const at::Tensor inner = first.forward(input);
    return second.forward(memory == MemoryMode::kStore ? activate(inner, activation)
                                                       : activate_in_place(inner, activation));
  };
  if (!keeps_input_only(memory)) return plain(x);
  return kernels::rerun_segment(plain, x, parameters_of({&first, &second}), kept_input(memory));
}

GatedMlpImpl::GatedMlpImpl(std::int64_t size, std::int64_t inner, bool bias, MlpActivation activation)
    : activation_(activation) {
  gate_proj = register_module("gate_proj", Linear(size, inner, bias));
  up_proj = register_module("up_proj", Linear(size, inner, bias));
  down_proj = register_module("down_proj", Linear(inner, size, bias));
}

at::Tensor GatedMlpImpl::plain(const at::Tensor& x, MemoryMode memory) const {
  const at::Tensor gate_up = fused_forward(x, {gate_proj.get(), up_proj.get()});
  if (activation_ == MlpActivation::kSilu && memory != MemoryMode::kStore) {
    return down_proj->forward(kernels::swiglu(gate_up));
  }
  const auto parts = gate_up.chunk(2, -1);
  return down_proj->forward(activate(parts[0], activation_) * parts[1]);
}

at::Tensor GatedMlpImpl::forward(const at::Tensor& x, MemoryMode memory) const {
  // Decoding keeps nothing, and its few rows have a faster path than the fused node's.
  if (memory == MemoryMode::kStore || !at::GradMode::is_enabled()) return plain(x, memory);
  const auto kind = smooth(activation_);
  if (!gate_proj->lora && !up_proj->lora && !down_proj->lora && kind) {
    return kernels::gated_mlp(x,
                              {.gate = gate_proj->weight,
                               .up = up_proj->weight,
                               .down = down_proj->weight,
                               .gate_bias = gate_proj->bias,
                               .up_bias = up_proj->bias,
                               .down_bias = down_proj->bias},
                              *kind, kept_by_node(memory));
  }
  if (!keeps_input_only(memory)) return plain(x, memory);
  return kernels::rerun_segment([this, memory](const at::Tensor& input) { return plain(input, memory); }, x,
                                parameters_of({gate_proj.get(), up_proj.get(), down_proj.get()}), kept_input(memory));
}

}  // namespace gantry::layers
