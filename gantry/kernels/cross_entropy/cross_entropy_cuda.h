#pragma once
// CUDA version of cross_entropy_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"

namespace gantry::kernels::cuda {

/// Rows [0, rows), such as a chunk of the logits; T is float, Bf16 or Fp16. Runs on the caller's device and stream and
/// waits for nothing; the launch's error comes back.
template <class T>
cudaError_t cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t rows, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
