// Tensors in eight bits, for what the memory mode "int8" keeps.
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "gantry/kernels/common.h"
#include "gantry/kernels/stash/stash.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

std::tuple<at::Tensor, at::Tensor> stash_op(const at::Tensor& x) {
  const BelowAutograd below;
  const kernels::Stashed packed = kernels::stash(x);
  return {packed.values, packed.scales};
}

at::Tensor unstash_op(const at::Tensor& values, const at::Tensor& scales, at::IntArrayRef sizes, at::ScalarType dtype) {
  const BelowAutograd below;
  const std::int64_t count = c10::multiply_integers(sizes);
  GANTRY_CHECK(values.scalar_type() == at::kChar && scales.scalar_type() == at::kBFloat16 && values.numel() == count &&
                   scales.numel() == kernels::stash_groups(count),
               "unstash: {} values and {} scales do not fit {}", values.numel(), scales.numel(), c10::str(sizes));
  return kernels::unstash({values.contiguous(), scales.contiguous(), sizes.vec(), dtype});
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("stash", gantry::python::stash_op);
  library.impl("unstash", gantry::python::unstash_op);
}
