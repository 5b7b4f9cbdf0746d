#pragma once
// CUDA versions of adamw_raw.h. Torch-free: pointers are device memory.
#include <cuda_runtime_api.h>

#include "gantry/kernels/adamw/adamw_raw.h"

namespace gantry::kernels::cuda {

/// Elements [0, n). They run on the caller's device and stream and wait for nothing; the launch's error comes back.
cudaError_t adamw(const AdamwArgs& args, const AdamwStep& step, std::int64_t n, cudaStream_t stream);

/// Gradient is float, Bf16 or Fp16.
template <class Gradient>
cudaError_t adamw_split(const AdamwSplitArgs<Gradient>& args, const AdamwStep& step, std::int64_t n,
                        cudaStream_t stream);

cudaError_t split_master(const float* master, Bf16* weight, std::int16_t* remainder, std::int64_t n,
                         cudaStream_t stream);
cudaError_t join_master(const Bf16* weight, const std::int16_t* remainder, float* master, std::int64_t n,
                        cudaStream_t stream);

}  // namespace gantry::kernels::cuda
