#pragma once
// Activations on vectors of fp32. Only *_cpu.cpp files include it.
#include "gantry/kernels/activation/activation_fit.h"
#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/activation/vector.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

// ---- functions

/// e^(x + low) = scale (1 + p) for x in [-87, 88] (scale and p of the nearest point of it elsewhere).
struct ExpParts {
  Vf p, scale;
};
GANTRY_VECTOR ExpParts exp_parts(Vf x, Vf low) {
  const Vf clamped = min(max(x, all(-87.0f)), all(88.0f));
  const Vf shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const Vf n = shifted - 12582912.0f;
  const Vf r = (clamped - n * 0.693359375f) - (n * -2.12194440e-4f - low);
  Vf p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  return {p, reinterpret_cast<Vf>((__builtin_convertvector(n, Vi) + 127) << 23)};
}

/// y, and what was lost when it was rounded (its sign is right; zero where nothing is known).
struct Rounded {
  Vf value, rest;
};

struct Logistic {
  Vf value, rest, sigmoid, complement;  ///< complement = 1 - sigmoid, without cancellation
};
/// x / (1 + e^(a + a_low)) and the sigmoid. The division and the sum are refined: at the minimum the rounding of y is
/// all that limits the derivative's error.
template <bool kRefine>
GANTRY_VECTOR Logistic logistic_product(Vf x, Vf a, Vf a_low) {
  const ExpParts parts = exp_parts(a, a_low);
  Vf e = parts.scale * parts.p + parts.scale;
  e = a > 88.0f ? all(__builtin_inff()) : e;
  const Vf s = e + 1.0f, inverse = 1.0f / s;
  const Vf y = x * inverse;
  const Vf complement = min(e, all(1e30f)) * inverse;
  if constexpr (!kRefine) return {y, Vf{}, inverse, complement};
  const Vf s_low = 1.0f - (s - e);
  const Vf rest = (fma(-y, s, x) - y * s_low) * inverse;
  const Vi plain = (e < 1e30f) & (abs(y) < __builtin_inff());  // also false for NaN
  const Vf refined = plain ? y + rest : y;
  return {refined, plain ? rest - (refined - y) : Vf{}, inverse, complement};
}

struct TanhArgument {
  Vf value, low;
};
/// -2 sqrt(2 / pi) (x + 0.044715 x^3), in two parts.
GANTRY_VECTOR TanhArgument tanh_argument(Vf x) {
  const Vf x2 = x * x;
  const Vf slope = x2 * fit::kTanhCubic + fit::kTanhLinear;
  const Vf slope_low = x2 * fit::kTanhCubic + (fit::kTanhLinear - slope) + fit::kTanhLinearLow;
  const Vf value = -x * slope;
  const Vf low = fma(-x, slope, -value) - x * slope_low;
  // The parts of a huge argument are infinities; alone its head counts.
  return {value, abs(value) < 100.0f ? low : Vf{}};
}

/// |t| Q(|t|) for the clamped |t|, with the rest of its rounding, Q and e^(-t^2/2).
struct NormalTail {
  Vf t, product, rest, gauss, tail;
};
GANTRY_VECTOR NormalTail normal_tail(Vf x) {
  const Vf t = min(abs(x), all(15.0f));
  const Vf v = (t - fit::kTailCentre) / (t + fit::kTailCentre);
  // The last step of the polynomial in two parts.
  const Vf above = polynomial(fit::kNormalTail, v), first = all(fit::kNormalTailStart);
  const Vf r = v * above + first, r_low = v * above + (first - r);
  const Vf exponent = t * t * -0.5f;
  const ExpParts parts = exp_parts(exponent, Vf{});
  const Vf scale = exponent > -87.0f ? parts.scale : Vf{};
  const Vf a = t * r, a_low = fma(t, r, -a) + t * r_low;
  const Vf correction = a * parts.p + a_low;
  const Vf sum = a + correction;
  return {t, scale * sum, scale * (correction - (sum - a)), scale * parts.p + scale, r * (scale * parts.p + scale)};
}

template <Activation kKind>
inline constexpr const fit::Table& kFit = kKind == Activation::kGeluErf    ? fit::kErf
                                          : kKind == Activation::kGeluTanh ? fit::kTanh
                                                                           : fit::kSilu;

template <Activation kKind>
inline constexpr float kInputScale = kKind == Activation::kQuickGelu ? fit::kQuickScale : 1.0f;

template <Activation kKind, bool kRefine>
GANTRY_VECTOR Logistic activate_logistic(Vf x) {
  if constexpr (kKind == Activation::kGeluTanh) {
    const TanhArgument argument = tanh_argument(x);
    return logistic_product<kRefine>(x, argument.value, kRefine ? argument.low : Vf{});
  } else {
    return logistic_product<kRefine>(x, x * -kInputScale<kKind>, Vf{});
  }
}

/// kRefine: for results that stay fp32; sixteen bits do not see it, and get no rest.
template <Activation kKind, bool kRefine>
GANTRY_VECTOR Rounded activate(Vf x) {
  if constexpr (kKind == Activation::kGeluErf) {
    const NormalTail tail = normal_tail(x);
    const Vi right = x >= 0.0f;
    const Vf y = right ? x - tail.product : -tail.product;
    return {x > -__builtin_inff() ? y : x - x, right ? Vf{} : -tail.rest};
  } else {
    const Logistic logistic = activate_logistic<kKind, kRefine>(x);
    return {logistic.value, logistic.rest};
  }
}

/// Calls body.template operator()<kind>().
template <class Body>
GANTRY_VECTOR void for_kind(Activation kind, Body body) {
  switch (kind) {
    case Activation::kGeluErf: return body.template operator()<Activation::kGeluErf>();
    case Activation::kGeluTanh: return body.template operator()<Activation::kGeluTanh>();
    case Activation::kSilu: return body.template operator()<Activation::kSilu>();
    case Activation::kQuickGelu: return body.template operator()<Activation::kQuickGelu>();
  }
}

struct ValueAndSlope {
  Vf value, slope;
};
/// f, as activate() up to its last bit (the compiler contracts differently), and f' from the input.
template <Activation kKind, bool kRefine>
GANTRY_VECTOR ValueAndSlope activate_with_slope(Vf x) {
  constexpr float kInverseRoot2Pi = 0.398942280f;
  Vf value, slope;
  if constexpr (kKind == Activation::kGeluErf) {
    const NormalTail tail = normal_tail(x);
    const Vi right = x >= 0.0f;
    const Vf bump = tail.t * tail.gauss * kInverseRoot2Pi;
    value = right ? x - tail.product : -tail.product;
    slope = right ? 1.0f - tail.tail + bump : tail.tail - bump;
  } else {
    // Beyond the clamp the sigmoid is 0 or 1 and the second term vanishes.
    const Logistic logistic = activate_logistic<kKind, kRefine>(x);
    const Vf s = logistic.sigmoid, z = min(max(x, all(-100.0f)), all(100.0f));
    const Vf inner =
        kKind == Activation::kGeluTanh ? z * z * (3.0f * fit::kTanhCubic) + fit::kTanhLinear : all(kInputScale<kKind>);
    value = logistic.value;
    slope = s + z * s * logistic.complement * inner;
  }
  const Vi finite = x > -__builtin_inff();
  return {finite ? value : x - x, finite ? slope : x - x};
}

// ---- the derivative from the output

/// ln(v) for v in (0, 1]; `minus` is v - 1, exact where v is near 1.
GANTRY_VECTOR Vf log_near_one(Vf v, Vf minus) {
  const Vi exponent = (bits_of(v) - 0x3f400000) >> 23;  // mantissa in [3/4, 3/2)
  const Vf mantissa = reinterpret_cast<Vf>(bits_of(v) - (exponent << 23));
  const Vf f = exponent == 0 ? minus : mantissa - 1.0f;
  return f * polynomial(fit::kLog1p, f) + __builtin_convertvector(exponent, Vf) * 0.693147181f;
}

template <Activation kKind, FitQuality kQuality>
GANTRY_VECTOR Vf slope_from_output(Vf output, Vi right) {
  constexpr const fit::Table& table = kFit<kKind>;
  const Vf y = output * kInputScale<kKind>;
  const Vf d = max((y - table.y_min) - table.y_min_low, Vf{});
  const Vf root = sqrt(d);
  Vf g;
  if constexpr (kQuality == FitQuality::kFast) {
    g = polynomial(table.fast, right ? root : -root);
    g = y > table.fast_end ? all(1.0f) : g;
  } else {
    const Vf along = table.tail_y != 0 ? y : root;
    const Vf tail = polynomial(table.tail, along - table.tail_centre);
    const Vf upper = y >= table.tail_end ? all(1.0f) : tail;
    const Vf v = max(y * -table.minus_inverse_y_min, all(fit::kLeftClamp * table.minus_inverse_y_min));
    const Vf w = sqrt(max(-log_near_one(v, d * -table.minus_inverse_y_min), Vf{}));
    g = y > table.core_end ? upper : polynomial(table.core, root);
    g = right ? g : y * polynomial(table.left, w);
  }
  return y == y ? g : y;  // max() swallows NaN
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
