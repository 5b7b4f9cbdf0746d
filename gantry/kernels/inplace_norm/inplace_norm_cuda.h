#pragma once
// CUDA versions of inplace_norm_raw.h, torch-free: pointers are device memory, bf16 is kernels::Bf16, masks are those
// of the CPU. The kernels run on the caller's device and stream and wait for nothing. Returned values are those of
// cudaGetLastError.
#include <cuda_runtime_api.h>

#include "gantry/kernels/device/norm_parts.h"
#include "gantry/kernels/inplace_norm/inplace_norm_raw.h"

namespace gantry::kernels::cuda {

/// T is float, Bf16 or Fp16. A row has to fit into a block's shared memory, 33 bits an element: 40,000 elements with
/// the 163 KiB of compute capability 8.0. Longer ones give an error, and so does a null args.rstd.
template <class T>
cudaError_t inplace_norm_forward(const InplaceNormForwardArgs<T>& args, bool centred, std::int64_t rows,
                                 cudaStream_t stream);

/// `partial` [kNormParts, 2, n] is working space; args.dweight and args.dbias [n] are overwritten.
template <class T>
cudaError_t inplace_norm_backward(const InplaceNormBackwardArgs<T>& args, bool centred, std::int64_t rows,
                                  float* partial, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
