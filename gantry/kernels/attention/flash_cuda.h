#pragma once
// CUDA versions of flash_raw.h. Torch-free: pointers are device memory; dropout masks are those of the CPU. Method:
// FlashAttention-2, Dao 2023, algorithms 1 and 2, in fp32 arithmetic. Backward runs algorithm 2 twice, once by tiles of
// keys for dk and dv and once by tiles of queries for dq: seven products of tiles instead of five, but no atomic
// additions, so that equal inputs give equal bits, and no buffer in fp32.
#include <cuda_runtime_api.h>

#include "gantry/kernels/attention/flash_raw.h"

namespace gantry::kernels::cuda {

/// T is float, Bf16 or Fp16; any head_dim up to 256, heads a multiple of kv_heads, lse not null: else
/// cudaErrorInvalidValue. args.scratch is not used. Kernels run on the caller's device and stream and wait for nothing;
/// the launch's error comes back.
template <class T>
cudaError_t flash_forward(const FlashForwardArgs<T>& args, cudaStream_t stream);

/// args.scratch [batch, heads, q_length] is working space. args.dscores, where given, is written for keys in tiles of
/// 64 or fewer of which a query near by sees one.
template <class T>
cudaError_t flash_backward(const FlashBackwardArgs<T>& args, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
