#pragma once
// Sums and maxima over warps and blocks.
#include "gantry/kernels/device/launch.h"

namespace gantry::kernels::cuda {

/// Over aligned groups of kLanes lanes, the same in each of them. All lanes of the warp call it.
template <int kLanes = 32>
__device__ inline float lanes_sum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

/// Passes over NaN unless all are.
template <int kLanes = 32>
__device__ inline float lanes_max(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/// Over all threads of a block, the same in each of them. `shared` [kThreads / 32] may be used again at once.
template <int kThreads>
__device__ inline float block_sum(float value, float* shared) {
  value = lanes_sum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) total += shared[warp];
  __syncthreads();
  return total;
}

template <int kThreads>
__device__ inline float block_max(float value, float* shared) {
  value = lanes_max(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float peak = shared[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) peak = fmaxf(peak, shared[warp]);
  __syncthreads();
  return peak;
}

}  // namespace gantry::kernels::cuda
