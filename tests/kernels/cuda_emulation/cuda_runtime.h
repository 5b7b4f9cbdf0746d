#pragma once
// Stands in for CUDA's <cuda_runtime.h> where a .cu file is compiled as C++: the part that Gantry's kernels use, over
// emulator.h.
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tests/kernels/cuda_emulation/emulator.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

using dim3 = cuda_emulation::Dim3;
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct CudaEmulationStream*;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

namespace cuda_emulation {

inline cudaError_t last_error = cudaSuccess;

/// What kernel<<<grid, threads, shared_bytes>>>(values...) does.
template <class... Parameters, class... Values>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared_bytes,
            const Values&... values) {
  const bool ran = run(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes,
                       [&] { kernel(static_cast<Parameters>(values)...); });
  if (!ran) last_error = cudaErrorInvalidConfiguration;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = exchange(WarpOperation::kShuffle, mask, bits, source);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace cuda_emulation

inline cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error, cudaSuccess); }

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  const bool allowed = bytes >= 0 && cuda_emulation::allow_shared(reinterpret_cast<const void*>(kernel),
                                                                  static_cast<std::size_t>(bytes));
  if (!allowed) cuda_emulation::last_error = cudaErrorInvalidValue;
  return allowed ? cudaSuccess : cudaErrorInvalidValue;
}

inline void __syncthreads() { cuda_emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_emulation::exchange(cuda_emulation::WarpOperation::kSynchronise, mask, 0, 0);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return cuda_emulation::shuffle(mask, value, static_cast<unsigned>(source));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return cuda_emulation::shuffle(mask, value, threadIdx.x % 32 ^ static_cast<unsigned>(bits));
}
inline unsigned __ballot_sync(unsigned mask, bool value) { return cuda_emulation::vote(mask, value); }
inline bool __any_sync(unsigned mask, bool value) { return cuda_emulation::vote(mask, value) != 0; }
inline bool __all_sync(unsigned mask, bool value) { return cuda_emulation::vote(mask, value) == 0xffffffffu; }

template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}
template <class T>
T __ldg(const T* from) {
  return *from;
}

inline unsigned __float_as_uint(float x) { return cuda_emulation::bits_as<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return cuda_emulation::bits_as<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(std::uint64_t{a} * b >> 32); }
inline int __float2int_rn(float x) { return x == x ? static_cast<int>(std::nearbyint(x)) : 0; }
