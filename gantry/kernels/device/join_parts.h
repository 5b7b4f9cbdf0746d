#pragma once
// The second half of what norm_parts.h describes.
#include "gantry/kernels/device/launch.h"
#include "gantry/kernels/device/norm_parts.h"

namespace gantry::kernels::cuda {

inline constexpr int kNormThreads = 256;

/// to[i] = sum over parts of partial[part * stride + i].
template <int kParts>
__global__ void join_parts_kernel(const float* partial, std::int64_t stride, std::int64_t n, float* to) {
  const std::int64_t i = global_thread();
  if (i >= n) return;
  float sum = 0;
  for (int part = 0; part < kParts; ++part) sum += partial[part * stride + i];
  to[i] = sum;
}

inline cudaError_t join_parts(const float* partial, std::int64_t stride, std::int64_t n, float* to,
                              cudaStream_t stream) {
  return launch(join_parts_kernel<kNormParts>, {blocks_for(n, kNormThreads), kNormThreads, 0, stream}, partial, stride,
                n, to);
}

}  // namespace gantry::kernels::cuda
