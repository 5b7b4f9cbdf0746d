#pragma once
// Activations on vectors of fp32. Only *_cpu.cpp files include it.
#include <iterator>
#include <type_traits>
#include <utility>

#include "gantry/kernels/activation/activation_fit.h"
#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/activation/vector.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

// ---- functions

/// e^(x + low) = scale (1 + p) for x in [-87, 88] (scale and p of the nearest point of it elsewhere).
struct ExpParts {
  Vf p, scale;
};
struct Reduced {
  Vf r, scale;  ///< x + low = ln(scale) + r, scale a power of two
};
GANTRY_VECTOR Reduced reduce_exponent(Vf x, Vf low) {
  const Vf clamped = min(max(x, all(-87.0f)), all(88.0f));
  // The sum's last bits are n plus the bias of an exponent.
  const Vf shifted = clamped * 1.44269504088896341f + (12582912.0f + 127.0f);
  const Vf n = shifted - (12582912.0f + 127.0f);
  const Vf r = (clamped - n * 0.693359375f) - (n * -2.12194440e-4f - low);
  return {r, reinterpret_cast<Vf>(bits_of(shifted) << 23)};
}
GANTRY_VECTOR ExpParts exp_parts(Vf x, Vf low) {
  const auto [r, scale] = reduce_exponent(x, low);
  Vf p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * (r * r) + r, scale};
}
GANTRY_VECTOR Vf short_exp(Vf x) {
  const auto [r, scale] = reduce_exponent(x, Vf{});
  return polynomial(fit::kShortExp, r) * scale;
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
  Vf e;
  if constexpr (kRefine) {
    const ExpParts parts = exp_parts(a, a_low);
    e = parts.scale * parts.p + parts.scale;
  } else {
    e = short_exp(a);
  }
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
template <bool kRefine>
GANTRY_VECTOR NormalTail normal_tail(Vf x) {
  const Vf t = min(abs(x), all(15.0f));
  const Vf v = (t - fit::kTailCentre) / (t + fit::kTailCentre);
  const Vf exponent = t * t * -0.5f;
  if constexpr (!kRefine) {
    const Vf r = v * polynomial(fit::kShortNormalTail, v) + fit::kShortNormalTailStart;
    const Vf gauss = exponent > -87.0f ? short_exp(exponent) : Vf{}, tail = r * gauss;
    return {t, t * tail, Vf{}, gauss, tail};
  }
  // The last step of the polynomial in two parts.
  const Vf above = polynomial(fit::kNormalTail, v), first = all(fit::kNormalTailStart);
  const Vf r = multiply_add(v, above, first), r_low = multiply_add(v, above, first - r);
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
inline constexpr const fit::ShortTable& kShortFit = kKind == Activation::kGeluErf    ? fit::kShortErf
                                                    : kKind == Activation::kGeluTanh ? fit::kShortTanh
                                                                                     : fit::kShortSilu;

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
    const NormalTail tail = normal_tail<kRefine>(x);
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
    const NormalTail tail = normal_tail<kRefine>(x);
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

// Several vectors at a time, step by step: one vector's chain of dependent operations would leave the processor idle.

/// Calls body(i) for i = 0 to kCount - 1 as constants.
template <int kCount, class Body>
GANTRY_VECTOR void for_each_constant(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, kCount>{});
}
#define GANTRY_LAMBDA __attribute__((always_inline))

template <int kTerms, int kCount>
GANTRY_VECTOR void polynomials(const float (&coefficients)[kTerms], const Vf (&x)[kCount], Vf (&sum)[kCount]) {
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { sum[i] = all(coefficients[kTerms - 1]); });
  for_each_constant<kTerms - 1>([&](auto k) GANTRY_LAMBDA {
    for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { sum[i] = sum[i] * x[i] + coefficients[kTerms - 2 - k]; });
  });
}

/// log[i] = -ln(v[i]) for v in (0, 1]; `below` is 1 - v, exact where v is near 1.
template <bool kShort, int kCount>
GANTRY_VECTOR void logs_near_one(const Vf (&v)[kCount], const Vf (&below)[kCount], Vf (&log)[kCount]) {
  Vf f[kCount], rest[kCount];
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    const Vi exponent = (bits_of(v[i]) - 0x3f400000) >> 23;  // mantissa in [3/4, 3/2)
    const Vf mantissa = reinterpret_cast<Vf>(bits_of(v[i]) - (exponent << 23));
    f[i] = exponent == 0 ? -below[i] : mantissa - 1.0f;
    rest[i] = __builtin_convertvector(exponent, Vf) * -0.693147181f;
  });
  if constexpr (kShort) {
    polynomials(fit::kShortLog1p, f, log);
  } else {
    polynomials(fit::kLog1p, f, log);
  }
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { log[i] = rest[i] - f[i] * log[i]; });
}

/// The accurate fit's polynomials side by side, a lane each.
inline constexpr std::int32_t kCore = 0, kTail = 1, kLeft = 2, kFar = 3;
template <int kTerms>
struct Pieces {
  alignas(64) float terms[kTerms][kWidth] = {};

  template <int kCount>
  constexpr void put(std::int32_t lane, const float (&coefficients)[kCount]) {
    for (int i = 0; i < kCount; ++i) terms[i][lane] = coefficients[i];
  }
};
constexpr Pieces<11> pieces_of(const fit::Table& table) {
  Pieces<11> pieces;
  pieces.put(kCore, table.core);
  pieces.put(kTail, table.tail);
  pieces.put(kLeft, table.left);
  return pieces;
}
constexpr Pieces<6> pieces_of(const fit::ShortTable& table) {
  Pieces<6> pieces;
  pieces.put(kCore, table.core);
  pieces.put(kTail, table.near);
  pieces.put(kLeft, table.left);
  pieces.put(kFar, table.far);
  return pieces;
}
template <Activation kKind, bool kShort>
inline constexpr auto kPieces = pieces_of(kFit<kKind>);
template <Activation kKind>
inline constexpr auto kPieces<kKind, true> = pieces_of(kShortFit<kKind>);

// One root and one polynomial, whose coefficients each lane looks up. Operands stand so that max() keeps a NaN.
template <Activation kKind, bool kShort, int kCount>
GANTRY_VECTOR void accurate_slopes(const Vf (&y)[kCount], const Vf (&d)[kCount], const Vi (&right)[kCount],
                                   Vf (&g)[kCount]) {
  constexpr const fit::Table& table = kFit<kKind>;
  constexpr const auto& pieces = kPieces<kKind, kShort>;
  constexpr int kLast = static_cast<int>(std::size(pieces.terms)) - 1;
  Vf v[kCount], below[kCount], log[kCount], variable[kCount];
  Vi index[kCount];
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    v[i] = max(all(fit::kLeftClamp * table.minus_inverse_y_min), y[i] * -table.minus_inverse_y_min);
    below[i] = d[i] * table.minus_inverse_y_min;
  });
  logs_near_one<kShort>(v, below, log);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    const Vi upper = y[i] > table.core_end;
    const Vf root = sqrt(right[i] ? d[i] : log[i]);
    const Vf along = (table.tail_y != 0 ? y[i] : root) - table.tail_centre;
    variable[i] = upper ? along : root;
    Vi tail = upper & kTail;
    if constexpr (kShort) tail = y[i] > kShortFit<kKind>.far_begin ? Vi{} + kFar : tail;
    index[i] = right[i] ? tail : Vi{} + kLeft;
    g[i] = lookup(read(pieces.terms[kLast]), index[i]);
  });
  for_each_constant<kLast>([&](auto k) GANTRY_LAMBDA {
    const Vf terms = read(pieces.terms[kLast - 1 - k]);
    for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { g[i] = g[i] * variable[i] + lookup(terms, index[i]); });
  });
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    g[i] = right[i] ? g[i] : y[i] * g[i];
    g[i] = y[i] >= table.tail_end ? all(1.0f) : g[i];
  });
}

/// kShort: for outputs that were stored in sixteen bits.
template <Activation kKind, FitQuality kQuality, bool kShort, int kCount>
GANTRY_VECTOR void slopes_from_outputs(const Vf (&output)[kCount], const Vi (&right)[kCount], Vf (&g)[kCount]) {
  constexpr const fit::Table& table = kFit<kKind>;
  Vf y[kCount], d[kCount], u[kCount];
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    y[i] = output[i] * kInputScale<kKind>;
    d[i] = max(Vf{}, (y[i] - table.y_min) - table.y_min_low);
  });
  if constexpr (kQuality == FitQuality::kAccurate) return accurate_slopes<kKind, kShort>(y, d, right, g);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    const Vf root = sqrt(d[i]);
    u[i] = right[i] ? root : -root;
  });
  polynomials(table.fast, u, g);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { g[i] = y[i] > table.fast_end ? all(1.0f) : g[i]; });
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
