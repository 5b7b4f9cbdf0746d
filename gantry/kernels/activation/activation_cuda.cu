// Method: as activation_cpu.cpp, one element a thread. A warp's ballot is its 32 flag bits.
#include "gantry/kernels/activation/activation_cuda.h"
#include "gantry/kernels/activation/activation_math_cuda.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;  // whole warps, so that a ballot's bits are neighbours

__constant__ const fit::Table kTables[3] = {fit::kErf, fit::kTanh, fit::kSilu};

template <Activation kKind>
constexpr int kTableIndex = kKind == Activation::kGeluErf    ? 0
                            : kKind == Activation::kGeluTanh ? 1
                                                             : 2;

template <Activation kKind, FitQuality kQuality>
__device__ float slope_from_output(float output, bool right) {
  const fit::Table& table = kTables[kTableIndex<kKind>];
  const float y = output * kScale<kKind>;
  if (y != y) return y;
  const float d = fmaxf((y - table.y_min) - table.y_min_low, 0.0f), root = sqrtf(d);
  if constexpr (kQuality == FitQuality::kFast) {
    return y > table.fast_end ? 1.0f : polynomial(table.fast, right ? root : -root);
  }
  if (!right) {
    const float v = fmaxf(-y * table.minus_inverse_y_min, fit::kLeftClamp * table.minus_inverse_y_min);
    // v - 1 is known without cancellation near one.
    const float log_v = v > 0.5f ? log1pf(-d * table.minus_inverse_y_min) : logf(v);
    return y * polynomial(table.left, sqrtf(fmaxf(-log_v, 0.0f)));
  }
  if (y >= table.tail_end) return 1.0f;
  if (y <= table.core_end) return polynomial(table.core, root);
  return polynomial(table.tail, (table.tail_y != 0.0f ? y : root) - table.tail_centre);
}

// ---- the flag in the last bit of negative values, see activation_cpu.cpp

__device__ unsigned next_bits(unsigned bits, unsigned flag, bool up) {
  return (bits & 1u) == flag ? bits : (up ? bits + 1u : bits - 1u);
}

__device__ void store_marked(float* to, Point y, bool right) {
  if (!(y.value <= 0.0f)) return put(to, y.value);
  if (y.value == 0.0f) return put(to, right ? 0.0f : -0.0f);
  *to = __uint_as_float(next_bits(__float_as_uint(y.value), right ? 1u : 0u, y.rest < 0.0f));
}

template <class Half>
__device__ void store_marked(Half* to, Point y, bool right) {
  put(to, y.value);
  if (!(y.value <= 0.0f)) return;
  if ((to->bits & 0x7fffu) == 0) {
    to->bits = right ? 0 : 0x8000u;
  } else {
    const bool up = fabsf(y.value) > fabsf(to_float(*to));
    to->bits = static_cast<std::uint16_t>(next_bits(to->bits, right ? 1u : 0u, up));
  }
}

__device__ bool mark(const float* y) {
  const unsigned bits = __float_as_uint(*y);
  return (bits & 1u) != 0 || (bits >> 31) == 0;
}
template <class Half>
__device__ bool mark(const Half* y) {
  return (y->bits & 1u) != 0 || (y->bits & 0x8000u) == 0;
}

// ---- kernels

template <Activation kKind, class T>
__global__ void forward_kernel(ActivationForwardArgs<T> args, std::int64_t n) {
  const std::int64_t i = global_thread();
  const bool inside = i < n;
  const float x = inside ? to_float(args.x[i]) : 0.0f;
  const bool right = x >= kTables[kTableIndex<kKind>].x_min / kScale<kKind>;
  if (args.side == SideFlag::kBit) {
    const unsigned bits = __ballot_sync(0xffffffffu, right);
    if (inside && i % 8 == 0) args.flags[i / 8] = static_cast<std::uint8_t>(bits >> (threadIdx.x % 32));
  }
  if (!inside) return;
  const Point y = evaluate<kKind>(x);
  if (args.side == SideFlag::kByte) args.flags[i] = right ? 1 : 0;
  if (args.side == SideFlag::kLowBit) return store_marked(args.y + i, y, right);
  put(args.y + i, y.value);
}

template <Activation kKind, FitQuality kQuality, class T>
__global__ void backward_kernel(ActivationBackwardArgs<T> args, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i >= n) return;
  bool right;
  if (args.side == SideFlag::kLowBit) {
    right = mark(args.y + i);
  } else if (args.side == SideFlag::kBit) {
    right = ((args.flags[i / 8] >> (i % 8)) & 1) != 0;
  } else {
    right = args.flags[i] != 0;
  }
  put(args.dx + i, to_float(args.dy[i]) * slope_from_output<kKind, kQuality>(to_float(args.y[i]), right));
}

template <Activation kKind, class T>
__global__ void exact_backward_kernel(ActivationExactArgs<T> args, std::int64_t n) {
  const std::int64_t i = global_thread();
  if (i >= n) return;
  const Point point = evaluate<kKind>(to_float(args.x[i]));
  put(args.dx + i, to_float(args.dy[i]) * point.slope);
  if (args.y != nullptr) put(args.y + i, point.value);
}

LaunchShape shape_for(std::int64_t n, cudaStream_t stream) { return {blocks_for(n, kThreads), kThreads, 0, stream}; }

}  // namespace

template <class T>
cudaError_t activation_forward(const ActivationForwardArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return for_kind(args.kind,
                  [&]<Activation kKind>() { return launch(forward_kernel<kKind, T>, shape_for(n, stream), args, n); });
}

template <class T>
cudaError_t activation_backward(const ActivationBackwardArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return for_kind(args.kind, [&]<Activation kKind>() {
    return launch(args.quality == FitQuality::kFast ? backward_kernel<kKind, FitQuality::kFast, T>
                                                    : backward_kernel<kKind, FitQuality::kAccurate, T>,
                  shape_for(n, stream), args, n);
  });
}

template <class T>
cudaError_t activation_exact_backward(const ActivationExactArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return for_kind(args.kind, [&]<Activation kKind>() {
    return launch(exact_backward_kernel<kKind, T>, shape_for(n, stream), args, n);
  });
}

#define GANTRY_INSTANTIATE(T)                                                                                \
  template cudaError_t activation_forward<T>(const ActivationForwardArgs<T>&, std::int64_t, cudaStream_t);   \
  template cudaError_t activation_backward<T>(const ActivationBackwardArgs<T>&, std::int64_t, cudaStream_t); \
  template cudaError_t activation_exact_backward<T>(const ActivationExactArgs<T>&, std::int64_t, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
