// One weight a thread; formulas as adamw_cpu.cpp.
#include "gantry/kernels/adamw/adamw_cuda.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float updated(float weight, float gradient, float* first, float* second, const AdamwStep& step) {
  gradient *= step.gradient_scale;
  const float m = *first * step.beta1 + gradient * (1.0f - step.beta1);
  const float v = *second * step.beta2 + gradient * gradient * (1.0f - step.beta2);
  *first = m;
  *second = v;
  const float denominator = sqrtf(v / step.bias_correction2) + step.eps;
  const float decayed = weight * (1.0f - step.learning_rate * step.weight_decay);
  return decayed - (step.learning_rate / step.bias_correction1) * (m / denominator);
}

__device__ float join(Bf16 weight, std::int16_t remainder) {
  return __uint_as_float((static_cast<unsigned>(weight.bits) << 16) + static_cast<unsigned>(std::int32_t{remainder}));
}

// Half up, so that the remainder fits into a signed number; a NaN becomes the quiet one, whose low half is zero.
__device__ void split(float master, Bf16* weight, std::int16_t* remainder) {
  const unsigned bits = master != master ? 0x7fc00000u : __float_as_uint(master);
  const unsigned high = (bits + 0x8000u) & 0xffff0000u;
  weight->bits = static_cast<std::uint16_t>(high >> 16);
  *remainder = static_cast<std::int16_t>(static_cast<std::int32_t>(bits - high));
}

__global__ void adamw_kernel(AdamwArgs args, AdamwStep step, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i < n) args.weight[i] = updated(args.weight[i], args.gradient[i], args.first + i, args.second + i, step);
}

template <class Gradient>
__global__ void adamw_split_kernel(AdamwSplitArgs<Gradient> args, AdamwStep step, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i >= n) return;
  const float master = updated(join(args.weight[i], args.remainder[i]), to_float(args.gradient[i]), args.first + i,
                               args.second + i, step);
  split(master, args.weight + i, args.remainder + i);
}

__global__ void split_kernel(const float* master, Bf16* weight, std::int16_t* remainder, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i < n) split(master[i], weight + i, remainder + i);
}

__global__ void join_kernel(const Bf16* weight, const std::int16_t* remainder, float* master, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i < n) master[i] = join(weight[i], remainder[i]);
}

LaunchShape shape_for(std::int64_t n, cudaStream_t stream) { return {blocks_for(n, kThreads), kThreads, 0, stream}; }

}  // namespace

cudaError_t adamw(const AdamwArgs& args, const AdamwStep& step, std::int64_t n, cudaStream_t stream) {
  return n == 0 ? cudaSuccess : launch(adamw_kernel, shape_for(n, stream), args, step, n);
}

template <class Gradient>
cudaError_t adamw_split(const AdamwSplitArgs<Gradient>& args, const AdamwStep& step, std::int64_t n,
                        cudaStream_t stream) {
  return n == 0 ? cudaSuccess : launch(adamw_split_kernel<Gradient>, shape_for(n, stream), args, step, n);
}

cudaError_t split_master(const float* master, Bf16* weight, std::int16_t* remainder, std::int64_t n,
                         cudaStream_t stream) {
  return n == 0 ? cudaSuccess : launch(split_kernel, shape_for(n, stream), master, weight, remainder, n);
}

cudaError_t join_master(const Bf16* weight, const std::int16_t* remainder, float* master, std::int64_t n,
                        cudaStream_t stream) {
  return n == 0 ? cudaSuccess : launch(join_kernel, shape_for(n, stream), weight, remainder, master, n);
}

#define GANTRY_INSTANTIATE(T) \
  template cudaError_t adamw_split<T>(const AdamwSplitArgs<T>&, const AdamwStep&, std::int64_t, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
