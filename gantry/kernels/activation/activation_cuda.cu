// Method: as activation_cpu.cpp, one element a thread. A warp's ballot is its 32 flag bits.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "gantry/kernels/activation/activation_cuda.h"
#include "gantry/kernels/activation/activation_fit.h"

namespace gantry::kernels {
namespace {

constexpr int kThreads = 256;  // whole warps, so that a ballot's bits are neighbours

__constant__ const fit::Table kTables[3] = {fit::kErf, fit::kTanh, fit::kSilu};
__constant__ const float kTail[10] = {
    fit::kNormalTail[0], fit::kNormalTail[1], fit::kNormalTail[2], fit::kNormalTail[3], fit::kNormalTail[4],
    fit::kNormalTail[5], fit::kNormalTail[6], fit::kNormalTail[7], fit::kNormalTail[8], fit::kNormalTail[9]};

template <Activation kKind>
constexpr int kTableIndex = kKind == Activation::kGeluErf    ? 0
                            : kKind == Activation::kGeluTanh ? 1
                                                             : 2;
template <Activation kKind>
constexpr float kScale = kKind == Activation::kQuickGelu ? fit::kQuickScale : 1.0f;

__device__ float load(const float* from) { return *from; }
__device__ float load(const Bf16* from) { return __bfloat162float(__ushort_as_bfloat16(from->bits)); }
__device__ float load(const Fp16* from) { return __half2float(__ushort_as_half(from->bits)); }
__device__ void store(float* to, float value) { *to = value; }
__device__ void store(Bf16* to, float value) { to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
__device__ void store(Fp16* to, float value) { to->bits = __half_as_ushort(__float2half_rn(value)); }

template <int kCount>
__device__ float polynomial(const float (&coefficients)[kCount], float x) {
  float sum = coefficients[kCount - 1];
#pragma unroll
  for (int i = kCount - 2; i >= 0; --i) sum = fmaf(sum, x, coefficients[i]);
  return sum;
}

/// f(x) with what its rounding lost, and f'(x).
struct Point {
  float value, rest, slope;
};

// x / (1 + e^(a + a_low)), sum and division refined.
__device__ Point logistic(float x, float a, float a_low, float inner) {
  const float e = a > 88.0f ? INFINITY : expf(a) * (1.0f + a_low);
  const float s = e + 1.0f, inverse = 1.0f / s, y = x * inverse;
  const float z = fminf(fmaxf(x, -100.0f), 100.0f);
  const float slope = inverse + z * inverse * (fminf(e, 1e30f) * inverse) * inner;
  if (!(e < 1e30f && fabsf(y) < INFINITY)) return {y, 0.0f, slope};
  const float s_low = 1.0f - (s - e);
  const float rest = (fmaf(-y, s, x) - y * s_low) * inverse, refined = y + rest;
  return {refined, rest - (refined - y), slope};
}

__device__ Point erf_gelu(float x) {
  const float t = fminf(fabsf(x), 15.0f), v = (t - fit::kTailCentre) / (t + fit::kTailCentre);
  const float above = polynomial(kTail, v), r = fmaf(v, above, fit::kNormalTailStart);
  const float r_low = fmaf(v, above, fit::kNormalTailStart - r);
  const float exponent = -0.5f * t * t, gauss = exponent > -87.0f ? expf(exponent) : 0.0f;
  const float a = t * r, a_low = fmaf(t, r, -a) + t * r_low;
  const float product = fmaf(a, gauss, a_low * gauss), rest = fmaf(a, gauss, -product) + a_low * gauss;
  const float tail = r * gauss, bump = t * gauss * 0.398942280f;
  return x >= 0.0f ? Point{x - product, 0.0f, 1.0f - tail + bump} : Point{-product, -rest, tail - bump};
}

template <Activation kKind>
__device__ Point evaluate(float x) {
  Point point;
  if constexpr (kKind == Activation::kGeluErf) {
    point = erf_gelu(x);
  } else if constexpr (kKind == Activation::kGeluTanh) {
    const float x2 = x * x, slope = fmaf(x2, fit::kTanhCubic, fit::kTanhLinear);
    const float slope_low = fmaf(x2, fit::kTanhCubic, fit::kTanhLinear - slope) + fit::kTanhLinearLow;
    const float argument = -x * slope, z = fminf(fmaxf(x, -100.0f), 100.0f);
    const float low = fabsf(argument) < 100.0f ? fmaf(-x, slope, -argument) - x * slope_low : 0.0f;
    point = logistic(x, argument, low, fmaf(z * z, 3.0f * fit::kTanhCubic, fit::kTanhLinear));
  } else {
    point = logistic(x, -kScale<kKind> * x, 0.0f, kScale<kKind>);
  }
  if (x > -INFINITY) return point;
  return {x - x, 0.0f, x - x};  // NaN
}

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
  if (!(y.value <= 0.0f)) return store(to, y.value);
  if (y.value == 0.0f) return store(to, right ? 0.0f : -0.0f);
  *to = __uint_as_float(next_bits(__float_as_uint(y.value), right ? 1u : 0u, y.rest < 0.0f));
}

template <class Half>
__device__ void store_marked(Half* to, Point y, bool right) {
  store(to, y.value);
  if (!(y.value <= 0.0f)) return;
  if ((to->bits & 0x7fffu) == 0) {
    to->bits = right ? 0 : 0x8000u;
  } else {
    const bool up = fabsf(y.value) > fabsf(load(to));
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
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool inside = i < n;
  const float x = inside ? load(args.x + i) : 0.0f;
  const bool right = x >= kTables[kTableIndex<kKind>].x_min / kScale<kKind>;
  if (args.side == SideFlag::kBit) {
    const unsigned bits = __ballot_sync(0xffffffffu, right);
    if (inside && i % 8 == 0) args.flags[i / 8] = static_cast<std::uint8_t>(bits >> (threadIdx.x % 32));
  }
  if (!inside) return;
  const Point y = evaluate<kKind>(x);
  if (args.side == SideFlag::kByte) args.flags[i] = right ? 1 : 0;
  if (args.side == SideFlag::kLowBit) return store_marked(args.y + i, y, right);
  store(args.y + i, y.value);
}

template <Activation kKind, FitQuality kQuality, class T>
__global__ void backward_kernel(ActivationBackwardArgs<T> args, std::int64_t n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  bool right;
  if (args.side == SideFlag::kLowBit) {
    right = mark(args.y + i);
  } else if (args.side == SideFlag::kBit) {
    right = ((args.flags[i / 8] >> (i % 8)) & 1) != 0;
  } else {
    right = args.flags[i] != 0;
  }
  store(args.dx + i, load(args.dy + i) * slope_from_output<kKind, kQuality>(load(args.y + i), right));
}

template <Activation kKind, class T>
__global__ void exact_backward_kernel(ActivationExactArgs<T> args, std::int64_t n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const Point point = evaluate<kKind>(load(args.x + i));
  store(args.dx + i, load(args.dy + i) * point.slope);
  if (args.y != nullptr) store(args.y + i, point.value);
}

template <class Body>
cudaError_t launch_for_kind(Activation kind, std::int64_t n, Body body) {
  if (n == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((n + kThreads - 1) / kThreads);
  switch (kind) {
    case Activation::kGeluErf: body.template operator()<Activation::kGeluErf>(blocks); break;
    case Activation::kGeluTanh: body.template operator()<Activation::kGeluTanh>(blocks); break;
    case Activation::kSilu: body.template operator()<Activation::kSilu>(blocks); break;
    case Activation::kQuickGelu: body.template operator()<Activation::kQuickGelu>(blocks); break;
  }
  return cudaGetLastError();
}

}  // namespace

template <class T>
cudaError_t activation_forward_cuda(const ActivationForwardArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  return launch_for_kind(args.kind, n, [&]<Activation kKind>(unsigned blocks) {
    forward_kernel<kKind, T><<<blocks, kThreads, 0, stream>>>(args, n);
  });
}

template <class T>
cudaError_t activation_backward_cuda(const ActivationBackwardArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  return launch_for_kind(args.kind, n, [&]<Activation kKind>(unsigned blocks) {
    if (args.quality == FitQuality::kFast) {
      backward_kernel<kKind, FitQuality::kFast, T><<<blocks, kThreads, 0, stream>>>(args, n);
    } else {
      backward_kernel<kKind, FitQuality::kAccurate, T><<<blocks, kThreads, 0, stream>>>(args, n);
    }
  });
}

template <class T>
cudaError_t activation_exact_backward_cuda(const ActivationExactArgs<T>& args, std::int64_t n, cudaStream_t stream) {
  return launch_for_kind(args.kind, n, [&]<Activation kKind>(unsigned blocks) {
    exact_backward_kernel<kKind, T><<<blocks, kThreads, 0, stream>>>(args, n);
  });
}

#define GANTRY_INSTANTIATE(T)                                                                                     \
  template cudaError_t activation_forward_cuda<T>(const ActivationForwardArgs<T>&, std::int64_t, cudaStream_t);   \
  template cudaError_t activation_backward_cuda<T>(const ActivationBackwardArgs<T>&, std::int64_t, cudaStream_t); \
  template cudaError_t activation_exact_backward_cuda<T>(const ActivationExactArgs<T>&, std::int64_t, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels
