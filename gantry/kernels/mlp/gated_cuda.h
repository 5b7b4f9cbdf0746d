#pragma once
// CUDA versions of gated_raw.h. Torch-free: pointers are device memory. The plain MLP takes activation_exact_backward
// of activation_cuda.h.
#include <cuda_runtime_api.h>

#include "gantry/kernels/mlp/gated_raw.h"

namespace gantry::kernels::cuda {

/// Rows [0, rows); T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the
/// launch's error comes back.
template <class T>
cudaError_t gated_forward(const GatedForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream);
template <class T>
cudaError_t gated_backward(const GatedBackwardArgs<T>& args, std::int64_t rows, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
