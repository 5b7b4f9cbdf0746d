// One block a row; the formulas are those of inplace_norm_cpu.cpp.
#include "gantry/kernels/device/dropout.h"
#include "gantry/kernels/device/join_parts.h"
#include "gantry/kernels/device/reduce.h"
#include "gantry/kernels/device/values.h"
#include "gantry/kernels/inplace_norm/inplace_norm_cuda.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = kNormThreads;
constexpr int kWarps = kThreads / 32;

// Keep bits of the row of n elements from `first` on, in shared memory: element i of the row has bit first % 8 + i. An
// element a thread would draw eight times the random numbers.
__device__ void draw_keep(const DropoutRule& rule, std::int64_t first, std::int64_t n, std::uint8_t* keep) {
  if (rule.threshold == 0) return;
  const std::int64_t block = first / 8, blocks = (first + n + 7) / 8 - block;
  for (std::int64_t i = threadIdx.x; i < blocks; i += kThreads) {
    keep[i] = static_cast<std::uint8_t>(keep_byte(rule, static_cast<std::uint64_t>(block + i)));
  }
  __syncthreads();
}

// What dropout multiplies element `at` with.
__device__ float factor_of(const DropoutRule& rule, float scale, const std::uint8_t* keep, std::int64_t first,
                           std::int64_t at) {
  return rule.threshold == 0 ? 1.0f : keep_factor(keep[at / 8 - first / 8], at, scale);
}

template <class T>
__device__ float input_of(const InplaceNormForwardArgs<T>& args, float factor, std::int64_t at) {
  float v = to_float(args.x[at]) * factor;
  if (args.residual != nullptr) v += to_float(args.residual[at]);
  if (args.sum == nullptr) return v;
  put(args.sum + at, v);
  return to_float(args.sum[at]);
}

template <class T>
__global__ void forward_kernel(InplaceNormForwardArgs<T> args, bool centred, float scale, std::int64_t rows) {
  float* row_values = dynamic_shared<float>();  // [n]
  __shared__ float sums[kWarps];
  const std::int64_t n = args.n;
  auto* keep = reinterpret_cast<std::uint8_t*>(row_values + n);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    draw_keep(args.dropout, row * n, n, keep);
    float total = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const std::int64_t at = row * n + i;
      row_values[i] = input_of(args, factor_of(args.dropout, scale, keep, row * n, at), at);
      total += row_values[i];
    }
    const float mean = centred ? block_sum<kThreads>(total, sums) / static_cast<float>(n) : 0.0f;
    float squares = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) squares += (row_values[i] - mean) * (row_values[i] - mean);
    const float rstd = 1.0f / sqrtf(block_sum<kThreads>(squares, sums) / static_cast<float>(n) + args.eps);
    if (threadIdx.x == 0) args.rstd[row] = rstd;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float normal = (row_values[i] - mean) * rstd;
      put(args.y + row * n + i, normal * args.weight[i] + args.bias[i]);
      if (args.normal != nullptr) put(args.normal + row * n + i, normal);
    }
    for (std::int64_t k = threadIdx.x; k < args.side_count; k += kThreads) {
      const std::int64_t i = args.side_columns[k];
      // The thread that made the value may be another one: block_sum has synchronised since.
      put(args.side + row * args.side_count + k, (row_values[i] - mean) * rstd);
    }
    __syncthreads();
  }
}

// The normalised inputs of a row into shared memory.
template <class T>
__device__ void read_normal(const InplaceNormBackwardArgs<T>& args, std::int64_t row, float* normal) {
  const std::int64_t n = args.n;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
    if (args.normal != nullptr) {
      normal[i] = to_float(args.normal[row * n + i]);
    } else {
      normal[i] = args.inverse[i] == 0 ? 0.0f : (to_float(args.y[row * n + i]) - args.bias[i]) * args.inverse[i];
    }
  }
  __syncthreads();
  for (std::int64_t k = threadIdx.x; k < args.side_count; k += kThreads) {
    normal[args.side_columns[k]] = to_float(args.side[row * args.side_count + k]);
  }
  __syncthreads();
}

template <class T>
__global__ void backward_kernel(InplaceNormBackwardArgs<T> args, bool centred, float scale, std::int64_t rows,
                                float* partial) {
  float* normal = dynamic_shared<float>();  // [n]
  __shared__ float sums[kWarps];
  const std::int64_t n = args.n;
  auto* keep = reinterpret_cast<std::uint8_t*>(normal + n);
  float *dweight = partial + 2 * n * blockIdx.x, *dbias = dweight + n;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) dweight[i] = dbias[i] = 0;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    draw_keep(args.dropout, row * n, n, keep);
    read_normal(args, row, normal);
    float total_g = 0, total_product = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float dy = to_float(args.dy[row * n + i]), scaled = dy * args.weight[i];
      total_g += scaled;
      total_product += scaled * normal[i];
      dweight[i] += dy * normal[i];
      dbias[i] += dy;
    }
    const float mean_g = centred ? block_sum<kThreads>(total_g, sums) / static_cast<float>(n) : 0.0f;
    const float mean_product = block_sum<kThreads>(total_product, sums) / static_cast<float>(n);
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const std::int64_t at = row * n + i;
      float result = (to_float(args.dy[at]) * args.weight[i] - mean_g - normal[i] * mean_product) * args.rstd[row];
      if (args.dsum != nullptr) result += to_float(args.dsum[at]);
      if (args.dresidual != nullptr) put(args.dresidual + at, result);
      put(args.dx + at, result * factor_of(args.dropout, scale, keep, row * n, at));
    }
    __syncthreads();
  }
}

// A row in fp32 and its keep bits, which begin anywhere in their first byte.
std::size_t row_bytes(std::int64_t n) {
  return static_cast<std::size_t>(n) * sizeof(float) + static_cast<std::size_t>(n / 8 + 2);
}

}  // namespace

template <class T>
cudaError_t inplace_norm_forward(const InplaceNormForwardArgs<T>& args, bool centred, std::int64_t rows,
                                 cudaStream_t stream) {
  if (args.rstd == nullptr) return cudaErrorInvalidValue;
  if (rows == 0 || args.n == 0) return cudaSuccess;
  return launch(forward_kernel<T>, {blocks_for_rows(rows), kThreads, row_bytes(args.n), stream}, args, centred,
                keep_scale(args.dropout.threshold), rows);
}

template <class T>
cudaError_t inplace_norm_backward(const InplaceNormBackwardArgs<T>& args, bool centred, std::int64_t rows,
                                  float* partial, cudaStream_t stream) {
  if (args.rstd == nullptr) return cudaErrorInvalidValue;
  if (args.n == 0) return cudaSuccess;
  cudaError_t error = launch(backward_kernel<T>, {kNormParts, kThreads, row_bytes(args.n), stream}, args, centred,
                             keep_scale(args.dropout.threshold), rows, partial);
  if (error == cudaSuccess) error = join_parts(partial, 2 * args.n, args.n, args.dweight, stream);
  if (error == cudaSuccess) error = join_parts(partial + args.n, 2 * args.n, args.n, args.dbias, stream);
  return error;
}

#define GANTRY_INSTANTIATE(T)                                                                                       \
  template cudaError_t inplace_norm_forward<T>(const InplaceNormForwardArgs<T>&, bool, std::int64_t, cudaStream_t); \
  template cudaError_t inplace_norm_backward<T>(const InplaceNormBackwardArgs<T>&, bool, std::int64_t, float*,      \
                                                cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
