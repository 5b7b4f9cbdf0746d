#pragma once
// Host and device side of a kernel launch. Under nvcc a launch is <<<>>>; any other compiler is to find the stand-in of
// tests/kernels/cuda_emulation for <cuda_runtime.h>, which runs kernels as C++.
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace gantry::kernels::cuda {

struct LaunchShape {
  dim3 blocks;
  unsigned threads;              ///< of a block; whole warps
  std::size_t shared_bytes = 0;  ///< dynamic shared memory of a block
  cudaStream_t stream = nullptr;
};

/// More dynamic shared memory than this a kernel must be allowed.
inline constexpr std::size_t kUnaskedShared = 48 * 1024;

/// kernel<<<shape>>>(values...), with permission for its shared memory. Returns the launch's error, such as for more
/// shared memory than the device has.
template <class... Parameters, class... Values>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, const Values&... values) {
  if (shape.shared_bytes > kUnaskedShared) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
#if defined(__CUDACC__)
  kernel<<<shape.blocks, shape.threads, shape.shared_bytes, shape.stream>>>(static_cast<Parameters>(values)...);
#else
  cuda_emulation::launch(kernel, shape.blocks, shape.threads, shape.shared_bytes, values...);
#endif
  return cudaGetLastError();
}

/// Blocks of `threads` for `count` items, one a thread.
inline dim3 blocks_for(std::int64_t count, unsigned threads) {
  return dim3(static_cast<unsigned>((count + threads - 1) / threads));
}

/// Blocks for kernels that take a row a block and then the rows that are `gridDim.x` further on: enough for any GPU.
inline dim3 blocks_for_rows(std::int64_t rows) { return dim3(static_cast<unsigned>(rows < 1024 ? rows : 1024)); }

/// This thread's place in the grid.
__device__ inline std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ inline T* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char gantry_dynamic_shared[];
  return reinterpret_cast<T*>(gantry_dynamic_shared);
#else
  return static_cast<T*>(cuda_emulation::dynamic_shared());
#endif
}

}  // namespace gantry::kernels::cuda
