#pragma once
// CUDA versions of layer_norm_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include "gantry/kernels/device/norm_parts.h"
#include "gantry/kernels/layer_norm/layer_norm_raw.h"

namespace gantry::kernels::cuda {

/// Rows [0, rows); T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the
/// launch's error comes back.
template <class T>
cudaError_t layer_norm_forward(const LayerNormForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream);

/// `partial` [kNormParts, 2, n] is working space; args.dweight and args.dbias [n] are overwritten.
template <class T>
cudaError_t layer_norm_backward(const LayerNormBackwardArgs<T>& args, std::int64_t rows, float* partial,
                                cudaStream_t stream);

}  // namespace gantry::kernels::cuda
