#pragma once
// CUDA versions of activation_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "gantry/kernels/activation/activation_raw.h"

namespace gantry::kernels::cuda {

/// Elements [0, n); T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the
/// launch's error comes back.
template <class T>
cudaError_t activation_forward(const ActivationForwardArgs<T>& args, std::int64_t n, cudaStream_t stream);
template <class T>
cudaError_t activation_backward(const ActivationBackwardArgs<T>& args, std::int64_t n, cudaStream_t stream);
template <class T>
cudaError_t activation_exact_backward(const ActivationExactArgs<T>& args, std::int64_t n, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
