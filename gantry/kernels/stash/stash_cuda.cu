// A warp packs a group, two elements a lane; unpacking is one element a thread.
#include "gantry/kernels/device/values.h"
#include "gantry/kernels/stash/stash_cuda.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kInfinityBits = 0x7f800000u, kSmallestNormalBits = 0x00800000u;

// The largest magnitude of a warp as bits, whose order is that of the numbers, with infinity and then NaN on top.
__device__ unsigned largest_bits(unsigned bits) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned other = __shfl_xor_sync(0xffffffffu, bits, offset);
    bits = other > bits ? other : bits;
  }
  return bits;
}

// The bf16 bits of a 127th, rounded up; NaN for what is not finite.
__device__ unsigned scale_bits(unsigned magnitude) {
  if (magnitude >= kInfinityBits) return 0x7fc00000u;
  const unsigned bits = (__float_as_uint(__uint_as_float(magnitude) / 127.0f) + 0xffffu) & ~0xffffu;
  return bits > kSmallestNormalBits ? bits : kSmallestNormalBits;
}

__device__ float largest_finite(float) { return 3.40282347e38f; }
__device__ float largest_finite(Bf16) { return 3.38953139e38f; }
__device__ float largest_finite(Fp16) { return 65504.0f; }

template <class T>
__global__ void stash_kernel(StashArgs<T> args, std::int64_t groups) {
  const std::int64_t group = global_thread() / 32, lane = threadIdx.x % 32;
  if (group >= groups) return;  // whole warps
  const std::int64_t first = group * kStashGroup + lane, second = first + 32;
  const float a = first < args.n ? to_float(args.x[first]) : 0.0f;
  const float b = second < args.n ? to_float(args.x[second]) : 0.0f;
  const unsigned a_bits = __float_as_uint(a) & 0x7fffffffu, b_bits = __float_as_uint(b) & 0x7fffffffu;
  const unsigned scale = scale_bits(largest_bits(a_bits > b_bits ? a_bits : b_bits));
  const float inverse = 1.0f / __uint_as_float(scale);
  if (lane == 0) args.scales[group].bits = static_cast<std::uint16_t>(scale >> 16);
  const bool finite = scale < kInfinityBits;
  if (first < args.n) args.values[first] = static_cast<std::int8_t>(finite ? __float2int_rn(a * inverse) : 0);
  if (second < args.n) args.values[second] = static_cast<std::int8_t>(finite ? __float2int_rn(b * inverse) : 0);
}

template <class T>
__global__ void unstash_kernel(UnstashArgs<T> args) {
  const std::int64_t i = global_thread();
  if (i >= args.n) return;
  const float highest = largest_finite(T{});
  float value = static_cast<float>(args.values[i]) * to_float(args.scales[i / kStashGroup]);
  value = value > highest ? highest : value;  // NaN passes both
  value = value < -highest ? -highest : value;
  put(args.x + i, value);
}

}  // namespace

template <class T>
cudaError_t stash(const StashArgs<T>& args, cudaStream_t stream) {
  const std::int64_t groups = stash_groups(args.n);
  if (groups == 0) return cudaSuccess;
  return launch(stash_kernel<T>, {blocks_for(32 * groups, kThreads), kThreads, 0, stream}, args, groups);
}

template <class T>
cudaError_t unstash(const UnstashArgs<T>& args, cudaStream_t stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(unstash_kernel<T>, {blocks_for(args.n, kThreads), kThreads, 0, stream}, args);
}

#define GANTRY_INSTANTIATE(T)                                       \
  template cudaError_t stash<T>(const StashArgs<T>&, cudaStream_t); \
  template cudaError_t unstash<T>(const UnstashArgs<T>&, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
