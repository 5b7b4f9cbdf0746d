#pragma once
// CUDA versions of rms_norm_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include "gantry/kernels/device/norm_parts.h"
#include "gantry/kernels/rms_norm/rms_norm_raw.h"

namespace gantry::kernels::cuda {

/// Rows [0, rows); T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the
/// launch's error comes back.
template <class T>
cudaError_t rms_norm_forward(const RmsNormForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream);

/// `partial` [kNormParts, n] is working space; args.dweight [n] is overwritten.
template <class T>
cudaError_t rms_norm_backward(const RmsNormBackwardArgs<T>& args, std::int64_t rows, float* partial,
                              cudaStream_t stream);

}  // namespace gantry::kernels::cuda
