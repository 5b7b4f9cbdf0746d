#pragma once
// CUDA version of dropout_raw.h. Torch-free: pointers are device memory; masks are those of the CPU.
#include <cuda_runtime_api.h>

#include "gantry/kernels/dropout/dropout_raw.h"

namespace gantry::kernels::cuda {

/// All elements; T is float, Bf16 or Fp16. Runs on the caller's device and stream and waits for nothing; the launch's
/// error comes back.
template <class T>
cudaError_t dropout_apply(const DropoutArgs<T>& args, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
