#pragma once
// What a feed-forward node keeps of its two inputs, by MlpMemory; for the sources of operators.
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include "gantry/kernels/mlp/mlp.h"
#include "gantry/kernels/mlp/parameter_gradients.h"
#include "gantry/kernels/stash/stash.h"

namespace gantry::kernels {

/// Four tensors for save_for_backward(), some undefined: x2 [rows, in] as it is or packed, the activation's input
/// [rows, inner] as it is or packed. `first_layer_learns`: a weight of the first layer wants a gradient.
torch::autograd::variable_list keep_inputs(MlpMemory memory, const at::Tensor& x2, const at::Tensor& inner,
                                           bool first_layer_learns);

/// Gives back what keep_inputs() kept.
class KeptInputs {
 public:
  /// `kept`: its four tensors.
  KeptInputs(MlpMemory memory, at::TensorList kept, at::ScalarType type)
      : memory_(memory), kept_(kept.vec()), type_(type) {}

  at::Tensor x2(std::int64_t rows, std::int64_t in) const { return restored(0, rows, in); }

  /// first_layer() where the activation's input was not kept.
  template <class FirstLayer>
  at::Tensor activation_input(std::int64_t rows, std::int64_t inner, FirstLayer&& first_layer) const {
    return memory_ == MlpMemory::kInput ? first_layer() : restored(2, rows, inner);
  }

  /// The activation's input is a temporary, or no later pass will want it.
  bool activation_input_is_free() const { return memory_ != MlpMemory::kActivationInput || kept_buffers_are_free(); }

 private:
  at::Tensor restored(std::size_t first, std::int64_t rows, std::int64_t columns) const {
    if (memory_ != MlpMemory::kInt8) return kept_[first];
    return unstash({kept_[first], kept_[first + 1], {rows, columns}, type_});
  }

  MlpMemory memory_;
  torch::autograd::variable_list kept_;
  at::ScalarType type_;
};

/// The same choice for a composition of operators inside rerun_segment().
inline KeepInput kept_by_segment(MlpMemory memory) {
  return memory == MlpMemory::kInt8 ? KeepInput::kInt8 : KeepInput::kTensor;
}

}  // namespace gantry::kernels
