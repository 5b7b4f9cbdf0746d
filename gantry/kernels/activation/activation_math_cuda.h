#pragma once
// The activations and their derivatives for CUDA kernels; formulas as activation_math.h. Included by .cu files, each of
// which gets its own constants.
#include "gantry/kernels/activation/activation_fit.h"
#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/device/launch.h"

namespace gantry::kernels::cuda {
namespace {

__constant__ const float kTail[10] = {
    fit::kNormalTail[0], fit::kNormalTail[1], fit::kNormalTail[2], fit::kNormalTail[3], fit::kNormalTail[4],
    fit::kNormalTail[5], fit::kNormalTail[6], fit::kNormalTail[7], fit::kNormalTail[8], fit::kNormalTail[9]};

template <Activation kKind>
constexpr float kScale = kKind == Activation::kQuickGelu ? fit::kQuickScale : 1.0f;

template <int kCount>
__device__ inline float polynomial(const float (&coefficients)[kCount], float x) {
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
__device__ inline Point logistic(float x, float a, float a_low, float inner) {
  const float e = a > 88.0f ? INFINITY : expf(a) * (1.0f + a_low);
  const float s = e + 1.0f, inverse = 1.0f / s, y = x * inverse;
  const float z = fminf(fmaxf(x, -100.0f), 100.0f);
  const float slope = inverse + z * inverse * (fminf(e, 1e30f) * inverse) * inner;
  if (!(e < 1e30f && fabsf(y) < INFINITY)) return {y, 0.0f, slope};
  const float s_low = 1.0f - (s - e);
  const float rest = (fmaf(-y, s, x) - y * s_low) * inverse, refined = y + rest;
  return {refined, rest - (refined - y), slope};
}

__device__ inline Point erf_gelu(float x) {
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

/// Calls body.template operator()<kind>().
template <class Body>
cudaError_t for_kind(Activation kind, Body body) {
  switch (kind) {
    case Activation::kGeluErf: return body.template operator()<Activation::kGeluErf>();
    case Activation::kGeluTanh: return body.template operator()<Activation::kGeluTanh>();
    case Activation::kSilu: return body.template operator()<Activation::kSilu>();
    case Activation::kQuickGelu: break;
  }
  return body.template operator()<Activation::kQuickGelu>();
}

}  // namespace
}  // namespace gantry::kernels::cuda
