#include "gantry/kernels/mlp/kept_inputs.h"

namespace gantry::kernels {

torch::autograd::variable_list keep_inputs(MlpMemory memory, const at::Tensor& x2, const at::Tensor& inner,
                                           bool first_layer_learns) {
  torch::autograd::variable_list kept(4);
  if (memory == MlpMemory::kInt8) {
    if (first_layer_learns) {
      const Stashed packed = stash(x2);
      kept[0] = packed.values;
      kept[1] = packed.scales;
    }
    const Stashed packed = stash(inner);
    kept[2] = packed.values;
    kept[3] = packed.scales;
    return kept;
  }
  if (first_layer_learns || memory == MlpMemory::kInput) kept[0] = x2;
  if (memory == MlpMemory::kActivationInput) kept[2] = inner;
  return kept;
}

}  // namespace gantry::kernels
