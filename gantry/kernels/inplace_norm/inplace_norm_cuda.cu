// One block a row; the formulas are those of inplace_norm_cpu.cpp.
#include "gantry/kernels/inplace_norm/inplace_norm_cuda.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ float value_of(float x) { return x; }
__device__ float value_of(Bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ void put(float* to, float x) { *to = x; }
__device__ void put(Bf16* to, float x) {
  const unsigned bits = __float_as_uint(x);
  to->bits = static_cast<std::uint16_t>(isnan(x) ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// What dropout multiplies element `index` with; cpu/dropout_rule.h defines the bits.
__device__ float factor_of(const DropoutRule& rule, float scale, std::uint64_t index) {
  const std::uint64_t block = index / 8;
  std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(rule.stream), c3 = static_cast<std::uint32_t>(rule.stream >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(rule.seed), k1 = static_cast<std::uint32_t>(rule.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(0xd2511f53u, c0), low0 = 0xd2511f53u * c0;
    const std::uint32_t high1 = __umulhi(0xcd9e8d57u, c2), low1 = 0xcd9e8d57u * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  const unsigned lane = index % 8;
  const std::uint32_t word = lane < 4 ? (lane < 2 ? c0 : c1) : (lane < 6 ? c2 : c3);
  return ((word >> (16 * (lane % 2))) & 0xffffu) >= rule.threshold ? scale : 0.0f;
}

// Sum over the block, the same in every thread.
__device__ float block_sum(float value, float* shared) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += shared[warp];
  __syncthreads();  // `shared` is used again
  return total;
}

template <class T>
__device__ float input_of(const InplaceNormForwardArgs<T>& args, float scale, std::int64_t at) {
  float v = value_of(args.x[at]);
  if (args.dropout.threshold != 0) v *= factor_of(args.dropout, scale, static_cast<std::uint64_t>(at));
  if (args.residual != nullptr) v += value_of(args.residual[at]);
  if (args.sum == nullptr) return v;
  put(args.sum + at, v);
  return value_of(args.sum[at]);
}

template <class T>
__global__ void forward_kernel(InplaceNormForwardArgs<T> args, bool centred, float scale, std::int64_t rows) {
  extern __shared__ float row_values[];  // [n]
  __shared__ float sums[kWarps];
  const std::int64_t n = args.n;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float total = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      row_values[i] = input_of(args, scale, row * n + i);
      total += row_values[i];
    }
    const float mean = centred ? block_sum(total, sums) / static_cast<float>(n) : 0.0f;
    float squares = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) squares += (row_values[i] - mean) * (row_values[i] - mean);
    const float rstd = 1.0f / sqrtf(block_sum(squares, sums) / static_cast<float>(n) + args.eps);
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
      normal[i] = value_of(args.normal[row * n + i]);
    } else {
      normal[i] = args.inverse[i] == 0 ? 0.0f : (value_of(args.y[row * n + i]) - args.bias[i]) * args.inverse[i];
    }
  }
  __syncthreads();
  for (std::int64_t k = threadIdx.x; k < args.side_count; k += kThreads) {
    normal[args.side_columns[k]] = value_of(args.side[row * args.side_count + k]);
  }
  __syncthreads();
}

template <class T>
__global__ void backward_kernel(InplaceNormBackwardArgs<T> args, bool centred, float scale, std::int64_t rows,
                                float* partial) {
  extern __shared__ float normal[];  // [n]
  __shared__ float sums[kWarps];
  const std::int64_t n = args.n;
  float *dweight = partial + 2 * n * blockIdx.x, *dbias = dweight + n;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) dweight[i] = dbias[i] = 0;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    read_normal(args, row, normal);
    float total_g = 0, total_product = 0;
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float dy = value_of(args.dy[row * n + i]), scaled = dy * args.weight[i];
      total_g += scaled;
      total_product += scaled * normal[i];
      dweight[i] += dy * normal[i];
      dbias[i] += dy;
    }
    const float mean_g = centred ? block_sum(total_g, sums) / static_cast<float>(n) : 0.0f;
    const float mean_product = block_sum(total_product, sums) / static_cast<float>(n);
    for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
      const std::int64_t at = row * n + i;
      float result = (value_of(args.dy[at]) * args.weight[i] - mean_g - normal[i] * mean_product) * args.rstd[row];
      if (args.dsum != nullptr) result += value_of(args.dsum[at]);
      if (args.dresidual != nullptr) put(args.dresidual + at, result);
      if (args.dropout.threshold != 0) result *= factor_of(args.dropout, scale, static_cast<std::uint64_t>(at));
      put(args.dx + at, result);
    }
    __syncthreads();
  }
}

// Joins the blocks' sums in a fixed order.
__global__ void join_kernel(const float* partial, std::int64_t n, float* dweight, float* dbias) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  float weight = 0, bias = 0;
  for (int part = 0; part < kNormParts; ++part) {
    weight += partial[2 * n * part + i];
    bias += partial[2 * n * part + n + i];
  }
  dweight[i] = weight;
  dbias[i] = bias;
}

// More than 48 KiB of shared memory must be asked for.
template <class Kernel>
cudaError_t reserve_row(Kernel kernel, std::size_t bytes) {
  if (bytes <= 48 * 1024) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace

template <class T>
cudaError_t inplace_norm_forward(const InplaceNormForwardArgs<T>& args, bool centred, std::int64_t rows,
                                 cudaStream_t stream) {
  if (rows == 0 || args.n == 0) return cudaSuccess;
  const std::size_t bytes = static_cast<std::size_t>(args.n) * sizeof(float);
  if (const auto error = reserve_row(forward_kernel<T>, bytes); error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(rows < 65536 ? rows : 65536);
  forward_kernel<T><<<blocks, kThreads, bytes, stream>>>(args, centred, keep_scale(args.dropout.threshold), rows);
  return cudaGetLastError();
}

template <class T>
cudaError_t inplace_norm_backward(const InplaceNormBackwardArgs<T>& args, bool centred, std::int64_t rows,
                                  float* partial, cudaStream_t stream) {
  if (args.n == 0) return cudaSuccess;
  const std::size_t bytes = static_cast<std::size_t>(args.n) * sizeof(float);
  if (const auto error = reserve_row(backward_kernel<T>, bytes); error != cudaSuccess) return error;
  backward_kernel<T>
      <<<kNormParts, kThreads, bytes, stream>>>(args, centred, keep_scale(args.dropout.threshold), rows, partial);
  const auto blocks = static_cast<unsigned>((args.n + kThreads - 1) / kThreads);
  join_kernel<<<blocks, kThreads, 0, stream>>>(partial, args.n, args.dweight, args.dbias);
  return cudaGetLastError();
}

#define GANTRY_INSTANTIATE(T)                                                                                       \
  template cudaError_t inplace_norm_forward<T>(const InplaceNormForwardArgs<T>&, bool, std::int64_t, cudaStream_t); \
  template cudaError_t inplace_norm_backward<T>(const InplaceNormBackwardArgs<T>&, bool, std::int64_t, float*,      \
                                                cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
