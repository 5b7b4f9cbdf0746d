#pragma once
// Activations on vectors of fp32. Only *_cpu.cpp files include it.
#include <iterator>
#include <type_traits>
#include <utility>

#include "gantry/kernels/activation/activation_fit.h"
#include "gantry/kernels/activation/activation_pieces.h"
#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/activation/vector.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

// ---- functions

/// x + low = ln(scale) + r, scale a power of two and |r| <= ln(2) / 2, for x in [-88, 88]; from -87.7 down scale is 0.
struct Reduced {
  Vf r, scale;
};
GANTRY_VECTOR Reduced reduce_exponent(Vf x, Vf low) {
  // The sum's last bits are n plus the bias of an exponent.
  const Vf shifted = x * 1.44269504088896341f + (12582912.0f + 127.0f);
  const Vf n = shifted - (12582912.0f + 127.0f);
#if defined(__AVX2__)
  const Vf r = (x - n * 0.693147181f) + low;
#else
  const Vf r = (x - n * 0.693359375f) - (n * -2.12194440e-4f - low);
#endif
  return {r, reinterpret_cast<Vf>(bits_of(shifted) << 23)};
}
/// e^(x + low) = scale (1 + p).
struct ExpParts {
  Vf p, scale;
};
GANTRY_VECTOR ExpParts exp_parts(Vf x, Vf low) {
  const auto [r, scale] = reduce_exponent(x, low);
  return {polynomial(fit::kExp, r) * (r * r) + r, scale};
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
/// x / (1 + e^a) and the sigmoid, from e^a. The division and the sum are refined: at the minimum the rounding of y is
/// all that limits the derivative's error.
template <bool kRefine>
GANTRY_VECTOR Logistic logistic_product(Vf x, Vf a, Vf e) {
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

/// t Q(t) for t = |x|, clamped from above right, with the rest of its rounding; e^(-t^2/2) and Q(t). t and what is made
/// of it are NaN for a NaN, all but t for -infinity.
struct NormalTail {
  Vf t, product, rest, gauss, tail;
};
template <bool kRefine>
GANTRY_VECTOR NormalTail normal_tail(Vf x) {
  const Vf t = abs(min(all(fit::kTailClamp), x));
  const Vf v = (t - fit::kTailRoot) / (t + fit::kTailPole);
  const Vf exponent = max(all(-88.0f), t * -0.5f * t), above = polynomial(fit::kQuarterTail, v);
  if constexpr (!kRefine) {
    const Vf gauss = short_exp(exponent), tail = (v * above + 0.25f) * gauss;
    return {t, t * tail, Vf{}, gauss, tail};
  }
  // t R(t) = quarter + other; quarter is exact, other the smaller part where it matters.
  const Vf quarter = t * 0.25f, other = t * v * above;
  const auto [p, scale] = exp_parts(exponent, Vf{});
  const Vf correction = other * p + (quarter * p + other), sum = quarter + correction, gauss = scale * p + scale;
  return {t, scale * sum, scale * (correction - (sum - quarter)), gauss, (v * above + 0.25f) * gauss};
}

template <Activation kKind>
inline constexpr const fit::Table& kFit = kKind == Activation::kGeluErf    ? fit::kErf
                                          : kKind == Activation::kGeluTanh ? fit::kTanh
                                                                           : fit::kSilu;

template <Activation kKind>
inline constexpr float kInputScale = kKind == Activation::kQuickGelu ? fit::kQuickScale : 1.0f;

template <Activation kKind, bool kRefine>
GANTRY_VECTOR Logistic activate_logistic(Vf x) {
  Vf a, low = {};
  if constexpr (kKind == Activation::kGeluTanh) {
    const TanhArgument argument = tanh_argument(x);
    a = argument.value, low = argument.low;
  } else {
    a = x * -kInputScale<kKind>;
  }
  const Vf clamped = min(all(88.0f), max(all(-88.0f), a));  // NaN stays one
  if constexpr (!kRefine) return logistic_product<false>(x, a, short_exp(clamped));
  const auto [p, scale] = exp_parts(clamped, low);
  return logistic_product<true>(x, a, scale * p + scale);
}

/// kRefine: for results that stay fp32; sixteen bits do not see it, and get no rest.
template <Activation kKind, bool kRefine>
GANTRY_VECTOR Rounded activate(Vf x) {
  if constexpr (kKind == Activation::kGeluErf) {
    const NormalTail tail = normal_tail<kRefine>(x);
    return {max(Vf{}, x) - tail.product, -tail.rest};
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
  if constexpr (kKind == Activation::kGeluErf) {
    const NormalTail tail = normal_tail<kRefine>(x);
    const Vf left = tail.tail - tail.t * tail.gauss * kInverseRoot2Pi;
    return {max(Vf{}, x) - tail.product, x >= 0.0f ? 1.0f - left : left};
  } else {
    // Beyond the clamp the sigmoid is 0 or 1 and the second term vanishes.
    const Logistic logistic = activate_logistic<kKind, kRefine>(x);
    const Vf s = logistic.sigmoid, z = min(max(x, all(-100.0f)), all(100.0f));
    const Vf inner =
        kKind == Activation::kGeluTanh ? z * z * (3.0f * fit::kTanhCubic) + fit::kTanhLinear : all(kInputScale<kKind>);
    const Vf slope = s + z * s * logistic.complement * inner;
    const Vi finite = x > -__builtin_inff();
    return {finite ? logistic.value : x - x, finite ? slope : x - x};
  }
}

// ---- the derivative from the output

// Most functions take several vectors at a time, step by step: one vector's chain of dependent operations would leave
// the processor idle.

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
    // v = sqrt(2) 2^exponent (1 + f), f from sqrt(1/2) - 1 to sqrt(2) - 1, but near 1, where v = 1 + f.
    const auto [exponent, mantissa] = binary_parts(v[i]);
    const Vi far = v[i] < 0.75f;
    f[i] = far ? mantissa * 0.707106781f - 1.0f : -below[i];
    rest[i] = far ? exponent * -0.693147181f - 0.346573590f : Vf{};
  });
  if constexpr (kShort) {
    polynomials(fit::kShortLog1p, f, log);
  } else {
    polynomials(fit::kLog1p, f, log);
  }
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { log[i] = rest[i] - f[i] * log[i]; });
}

template <Activation kKind, bool kShort>
inline constexpr const auto& kPiecesOf = fit::kSiluPieces;
template <Activation kKind>
inline constexpr const auto& kPiecesOf<kKind, true> = fit::kShortSiluPieces;
template <>
inline constexpr const auto& kPiecesOf<Activation::kGeluErf, false> = fit::kErfPieces;
template <>
inline constexpr const auto& kPiecesOf<Activation::kGeluErf, true> = fit::kShortErfPieces;
template <>
inline constexpr const auto& kPiecesOf<Activation::kGeluTanh, false> = fit::kTanhPieces;
template <>
inline constexpr const auto& kPiecesOf<Activation::kGeluTanh, true> = fit::kShortTanhPieces;

// One root and one polynomial, whose coefficients each lane looks up. Operands stand so that max() and min() keep a
// NaN.
template <Activation kKind, bool kShort, int kCount>
GANTRY_VECTOR void accurate_slopes(const Vf (&y)[kCount], const Mask (&left)[kCount], Vf (&g)[kCount]) {
  constexpr const fit::Table& table = kFit<kKind>;
  constexpr const auto& pieces = kPiecesOf<kKind, kShort>;
  constexpr int kLast = static_cast<int>(std::size(pieces.terms)) - 1;
  constexpr float kSquare = pieces.root_scale * pieces.root_scale;  // a power of four
  constexpr float kMostSteps = static_cast<float>(fit::kPieces) - 0.51f;
  constexpr float kLargest = kMostSteps * kMostSteps / (pieces.inverse_step * pieces.inverse_step);
  Vf v[kCount], d[kCount], below[kCount], log[kCount], t[kCount];
  Vi index[kCount];
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    v[i] = max(all(fit::kLeftClamp * table.minus_inverse_y_min), y[i] * -table.minus_inverse_y_min);
    d[i] = max(all(1e-30f), (y[i] * kSquare - kSquare * table.y_min) - kSquare * table.y_min_low);
    below[i] = d[i] * (table.minus_inverse_y_min / kSquare);
  });
  logs_near_one<kShort>(v, below, log);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    constexpr float kRound = 12582912.0f;
    const Vf square = min(all(kLargest), select(left[i], log[i], d[i]));
    const Vf steps = quick_sqrt<kShort>(square) * pieces.inverse_step;
    const Vf shifted = steps + kRound;  // its last bits are the integer next to it
    t[i] = steps - (shifted - kRound);
    index[i] = table_index(bits_of(shifted), left[i]);
    g[i] = lookup(pieces.terms[kLast], index[i]);
  });
  for_each_constant<kLast>([&](auto k) GANTRY_LAMBDA {
    for_each_constant<kCount>(
        [&](auto i) GANTRY_LAMBDA { g[i] = g[i] * t[i] + lookup(pieces.terms[kLast - 1 - k], index[i]); });
  });
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { g[i] = select(left[i], y[i] * g[i], g[i]); });
}

/// kShort: for outputs that were stored in sixteen bits.
template <Activation kKind, FitQuality kQuality, bool kShort, int kCount>
GANTRY_VECTOR void slopes_from_outputs(const Vf (&output)[kCount], const Mask (&left)[kCount], Vf (&g)[kCount]) {
  constexpr const fit::Table& table = kFit<kKind>;
  Vf y[kCount], u[kCount];
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { y[i] = output[i] * kInputScale<kKind>; });
  if constexpr (kQuality == FitQuality::kAccurate) return accurate_slopes<kKind, kShort>(y, left, g);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA {
    const Vf root = sqrt(max(Vf{}, (y[i] - table.y_min) - table.y_min_low));
    u[i] = select(left[i], -root, root);
  });
  polynomials(table.fast, u, g);
  for_each_constant<kCount>([&](auto i) GANTRY_LAMBDA { g[i] = y[i] > table.fast_end ? all(1.0f) : g[i]; });
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
