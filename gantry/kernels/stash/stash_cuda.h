#pragma once
// CUDA versions of stash_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include "gantry/kernels/stash/stash_raw.h"

namespace gantry::kernels::cuda {

/// All groups; T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the launch's
/// error comes back. Values of a group that is not finite are 0.
template <class T>
cudaError_t stash(const StashArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t unstash(const UnstashArgs<T>& args, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
