#pragma once
// CUDA versions of stored_raw.h. Torch-free: pointers are device memory; dropout masks are those of the CPU. Forward
// computes the scores twice, for the softmax's sums and for the probabilities, instead of keeping a row of them.
#include <cuda_runtime_api.h>

#include "gantry/kernels/attention/stored_raw.h"

namespace gantry::kernels::cuda {

/// As for flash_forward and flash_backward of flash_cuda.h.
template <class T>
cudaError_t stored_forward(const StoredForwardArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t stored_backward(const StoredBackwardArgs<T>& args, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
