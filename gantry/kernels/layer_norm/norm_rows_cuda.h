#pragma once
// Kernels of the layer and the RMS norm, one block a row; formulas as layer_norm_cpu.cpp and rms_norm_cpu.cpp. Rows are
// read from global memory each time: they have no largest length. Only layer_norm_cuda.cu and rms_norm_cuda.cu include
// it.
#include "gantry/kernels/device/join_parts.h"
#include "gantry/kernels/device/reduce.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {

/// As LayerNormForwardArgs; an RMS norm has neither bias nor mean and is not centred.
template <class T>
struct NormForward {
  const T *x, *residual;
  T* sum;
  const T *weight, *bias;
  T* y;
  float *mean, *rstd;
  std::int64_t n;
  float eps;
  bool centred;
};

/// As LayerNormBackwardArgs, with the place of this launch's sums, [kNormParts, 2 or 1, n], instead of the gradients.
template <class T>
struct NormBackward {
  const T *dy, *x;
  const float *mean, *rstd;
  const T *weight, *dsum;
  T* dx;
  float* partial;
  std::int64_t n;
  bool centred;
};

template <class T>
__global__ void __launch_bounds__(kNormThreads) norm_forward_kernel(NormForward<T> args, std::int64_t rows) {
  __shared__ float shared[kNormThreads / 32];
  const std::int64_t n = args.n;
  const auto count = static_cast<float>(n);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* x = args.x + row * n;
    if (args.residual != nullptr) {
      T* sum = args.sum + row * n;
      for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
        put(sum + i, to_float(x[i]) + to_float(args.residual[row * n + i]));
      }
      x = sum;  // below, each thread reads what it has written itself
    }
    float total = 0;
    for (std::int64_t i = threadIdx.x; args.centred && i < n; i += kNormThreads) total += to_float(x[i]);
    const float mean = args.centred ? block_sum<kNormThreads>(total, shared) / count : 0.0f;
    float squares = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
      const float centred = to_float(x[i]) - mean;
      squares += centred * centred;
    }
    const float rstd = 1.0f / sqrtf(block_sum<kNormThreads>(squares, shared) / count + args.eps);
    if (threadIdx.x == 0 && args.mean != nullptr) args.mean[row] = mean;
    if (threadIdx.x == 0 && args.rstd != nullptr) args.rstd[row] = rstd;
    for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
      const float bias = args.bias == nullptr ? 0.0f : to_float(args.bias[i]);
      put(args.y + row * n + i, (to_float(x[i]) - mean) * rstd * to_float(args.weight[i]) + bias);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kNormThreads) norm_backward_kernel(NormBackward<T> args, std::int64_t rows) {
  __shared__ float shared[kNormThreads / 32];
  const std::int64_t n = args.n;
  const auto count = static_cast<float>(n);
  float* dweight = args.partial + (args.centred ? 2 : 1) * n * blockIdx.x;
  float* dbias = args.centred ? dweight + n : nullptr;
  for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
    dweight[i] = 0;
    if (args.centred) dbias[i] = 0;
  }
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *x = args.x + row * n, *dy = args.dy + row * n;
    const float mean = args.centred ? args.mean[row] : 0.0f, rstd = args.rstd[row];
    float total = 0, total_product = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
      const float gradient = to_float(dy[i]), normal = (to_float(x[i]) - mean) * rstd;
      const float scaled = gradient * to_float(args.weight[i]);
      total += scaled;
      total_product += scaled * normal;
      dweight[i] += gradient * normal;
      if (args.centred) dbias[i] += gradient;
    }
    const float mean_g = args.centred ? block_sum<kNormThreads>(total, shared) / count : 0.0f;
    const float mean_product = block_sum<kNormThreads>(total_product, shared) / count;
    for (std::int64_t i = threadIdx.x; i < n; i += kNormThreads) {
      const float normal = (to_float(x[i]) - mean) * rstd;
      float result = (to_float(dy[i]) * to_float(args.weight[i]) - mean_g - normal * mean_product) * rstd;
      if (args.dsum != nullptr) result += to_float(args.dsum[row * n + i]);
      put(args.dx + row * n + i, result);
    }
  }
}

template <class T>
cudaError_t norm_forward(const NormForward<T>& args, std::int64_t rows, cudaStream_t stream) {
  if (rows == 0 || args.n == 0) return cudaSuccess;
  return launch(norm_forward_kernel<T>, {blocks_for_rows(rows), kNormThreads, 0, stream}, args, rows);
}

template <class T>
cudaError_t norm_backward(const NormBackward<T>& args, float* dweight, float* dbias, std::int64_t rows,
                          cudaStream_t stream) {
  if (args.n == 0) return cudaSuccess;
  const std::int64_t stride = (args.centred ? 2 : 1) * args.n;
  cudaError_t error = launch(norm_backward_kernel<T>, {kNormParts, kNormThreads, 0, stream}, args, rows);
  if (error == cudaSuccess) error = join_parts(args.partial, stride, args.n, dweight, stream);
  if (error == cudaSuccess && args.centred) error = join_parts(args.partial + args.n, stride, args.n, dbias, stream);
  return error;
}

}  // namespace gantry::kernels::cuda
