// Double precision, for gradient checks and as the oracle of the vector kernels. Method: safeguarded Newton iteration
// (Press et al., Numerical Recipes, section 9.4).
#include <bit>
#include <cmath>

#include "gantry/kernels/activation/activation_raw.h"

namespace gantry::kernels {
namespace {

struct Point {
  double value, slope;
};

Point evaluate(Activation kind, double x) {
  if (kind == Activation::kGeluErf) {
    const double cdf = 0.5 * std::erfc(-x * M_SQRT1_2);
    return {x * cdf, cdf + x * std::exp(-0.5 * x * x) * (0.5 * M_2_SQRTPI * M_SQRT1_2)};
  }
  const double root = M_2_SQRTPI * M_SQRT2;  // 2 sqrt(2 / pi)
  double argument = x, inner = 1.0;
  if (kind == Activation::kGeluTanh) {
    argument = root * (x + 0.044715 * x * x * x);
    inner = root * (1.0 + 3.0 * 0.044715 * x * x);
  } else if (kind == Activation::kQuickGelu) {
    argument = 1.702 * x;
    inner = 1.702;
  }
  const double s = 1.0 / (1.0 + std::exp(-argument)), t = 1.0 / (1.0 + std::exp(argument));
  const double bump = s * t;
  return {x * s, bump == 0 ? s : s + x * bump * inner};
}

double minimum_of(Activation kind) {
  switch (kind) {
    case Activation::kGeluErf: return -0.75179152469356446;
    case Activation::kGeluTanh: return -0.75246142207101626;
    case Activation::kSilu: return -1.27846454276107380;
    case Activation::kQuickGelu: break;
  }
  return -1.27846454276107380 / 1.702;
}

// f(x) lies between x - 0.28 and x for x > 0 and f falls to zero, in double precision, before -800.
double inverse(Activation kind, double y, bool right) {
  const double minimum = minimum_of(kind);
  double low = right ? minimum : -800.0, high = right ? std::fmax(y, 0.0) + 0.3 : minimum;
  double x = right ? std::fmax(y, 0.1) : minimum - 1.0;
  for (int i = 0; i < 200 && high - low > 1e-16 * std::fabs(x); ++i) {
    const Point point = evaluate(kind, x);
    if (point.value == y) break;
    ((point.value < y) == right ? low : high) = x;
    const double next = x - (point.value - y) / point.slope;
    x = next > low && next < high ? next : 0.5 * (low + high);
  }
  return x;
}

double marked(double y, bool right) {
  if (y == 0) return right ? 0.0 : -0.0;
  if (!(y < 0)) return y;
  const auto bits = std::bit_cast<std::uint64_t>(y);
  return (bits & 1) == (right ? 1u : 0u) ? y : std::bit_cast<double>(bits - 1);
}

// Bits arrive in ascending order within a thread's range, which starts at a multiple of eight.
void put_flag(std::uint8_t* flags, SideFlag side, std::int64_t i, bool right) {
  if (side == SideFlag::kByte) flags[i] = right ? 1 : 0;
  if (side != SideFlag::kBit) return;
  if (i % 8 == 0) flags[i / 8] = 0;
  if (right) flags[i / 8] = static_cast<std::uint8_t>(flags[i / 8] | (1u << (i % 8)));
}

bool get_flag(const ActivationBackwardArgs<double>& args, std::int64_t i) {
  if (args.side == SideFlag::kByte) return args.flags[i] != 0;
  if (args.side == SideFlag::kBit) return ((args.flags[i / 8] >> (i % 8)) & 1) != 0;
  const auto bits = std::bit_cast<std::uint64_t>(args.y[i]);
  return (bits & 1) != 0 || (bits >> 63) == 0;
}

double slope_from_output(Activation kind, double y, bool right) {
  if (std::isnan(y)) return y;
  if (y == INFINITY) return 1.0;
  return evaluate(kind, inverse(kind, y, right)).slope;
}

}  // namespace

void activation_forward_fp64(const ActivationForwardArgs<double>& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const bool right = args.x[i] >= minimum_of(args.kind);
    const double y = evaluate(args.kind, args.x[i]).value;
    args.y[i] = args.side == SideFlag::kLowBit ? marked(y, right) : y;
    put_flag(args.flags, args.side, i, right);
  }
}

void activation_backward_fp64(const ActivationBackwardArgs<double>& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    args.dx[i] = args.dy[i] * slope_from_output(args.kind, args.y[i], get_flag(args, i));
  }
}

void activation_exact_backward_fp64(const ActivationExactArgs<double>& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const Point point = evaluate(args.kind, args.x[i]);
    args.dx[i] = args.dy[i] * point.slope;
    if (args.y != nullptr) args.y[i] = point.value;
  }
}

}  // namespace gantry::kernels
