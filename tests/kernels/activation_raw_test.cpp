// Raw activation kernels against double precision: values, derivatives recovered from the output, side flags and
// extremes, for every instruction set that this processor has.
#include "gantry/kernels/activation/activation_raw.h"

#include "gantry/kernels/activation/activation_fit.h"
#include "gantry/kernels/activation/activation_pieces.h"
#include "tests/kernels/activation_extremes.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr Activation kKinds[] = {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu,
                                 Activation::kQuickGelu};
constexpr SideFlag kSides[] = {SideFlag::kByte, SideFlag::kBit, SideFlag::kLowBit};
const char* const kKindNames[] = {"erf GELU", "tanh GELU", "SiLU", "QuickGELU"};
const char* const kSideNames[] = {"none", "byte", "bit", "last bit"};

std::size_t flag_bytes(SideFlag side, std::size_t n) {
  return side == SideFlag::kByte ? n : side == SideFlag::kBit ? (n + 7) / 8 : 0;
}

/// f and f' of one input in double precision.
struct Exact {
  double value, slope;
};
Exact exact(Activation kind, double x) {
  const double one = 1.0;
  Exact result{};
  activation_forward_fp64({kind, SideFlag::kNone, &x, &result.value, nullptr}, 0, 1);
  activation_exact_backward_fp64({kind, &x, &one, &result.slope, nullptr}, 0, 1);
  return result;
}

struct Errors {
  double largest = 0, rms = 0;
};

/// Errors of the derivative after a forward pass in type T, for exact inputs.
template <class T, class Forward, class Backward>
Errors slope_errors(Forward forward, Backward backward, Activation kind, FitQuality quality, SideFlag side,
                    const Doubles& inputs) {
  const auto n = static_cast<std::int64_t>(inputs.size());
  Guarded<T> buffer(inputs), slopes(n);
  const Guarded<T> ones(Doubles(inputs.size(), 1.0));
  std::vector<std::uint8_t> flags(flag_bytes(side, inputs.size()) + 1, 0xa5);
  forward({kind, side, buffer.data(), buffer.data(), flags.data()}, 0, n);
  backward({kind, quality, side, buffer.data(), ones.data(), slopes.data(), flags.data()}, 0, n);
  EXPECT_TRUE(buffer.intact() && slopes.intact());
  EXPECT_EQ(flags.back(), 0xa5) << "wrote behind the flags";
  Errors errors;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const double error = std::abs(value_of(slopes.data()[i]) - exact(kind, inputs[i]).slope);
    errors.largest = error > errors.largest || std::isnan(error) ? error : errors.largest;
    errors.rms += error * error / static_cast<double>(inputs.size());
  }
  errors.rms = std::sqrt(errors.rms);
  return errors;
}

/// [-12, 20], densely around the minima, where the fit is most sensitive.
Doubles sweep() {
  Doubles result;
  for (int i = 0; i <= 32000; ++i) result.push_back(-12.0 + i * 1e-3 + 1e-5);
  for (const double centre : {-0.7518, -0.7525, -1.2785, -0.7512}) {
    for (int i = -20000; i <= 20000; ++i) result.push_back(centre + i * 2e-7);
  }
  return result;
}

template <class T>
void expect_slopes(Activation kind, FitQuality quality, SideFlag side, Errors bar) {
  SCOPED_TRACE(kKindNames[static_cast<int>(kind)]);
  SCOPED_TRACE(kSideNames[static_cast<int>(side)]);
  const Doubles wide = rounded<T>(sweep()), likely = rounded<T>(normal(100001, 3));
  const auto forwards = GANTRY_ISA_VERSIONS(activation_forward<T>);
  const auto backwards = GANTRY_ISA_VERSIONS(activation_backward<T>);
  for (std::size_t v = 0; v < forwards.size(); ++v) {
    SCOPED_TRACE(base::isa_name(forwards[v].isa));
    const Errors range = slope_errors<T>(forwards[v].run, backwards[v].run, kind, quality, side, wide);
    const Errors usual = slope_errors<T>(forwards[v].run, backwards[v].run, kind, quality, side, likely);
    EXPECT_LE(range.largest, bar.largest);
    EXPECT_LE(usual.rms, bar.rms);
    if (std::getenv("GANTRY_TEST_PRINT") != nullptr) {
      std::printf("%-10s %-8s %d bits, quality %d: largest %.2e, rms %.2e\n", kKindNames[static_cast<int>(kind)],
                  kSideNames[static_cast<int>(side)], static_cast<int>(8 * sizeof(T)), static_cast<int>(quality),
                  range.largest, usual.rms);
    }
  }
}

TEST(ActivationRaw, AccurateSlopesFromTheOutputInFp32) {
  for (const Activation kind : kKinds) {
    for (const SideFlag side : kSides) expect_slopes<float>(kind, FitQuality::kAccurate, side, {1.5e-4, 3e-6});
  }
}

TEST(ActivationRaw, FastSlopesFromTheOutputInFp32) {
  for (const Activation kind : kKinds) expect_slopes<float>(kind, FitQuality::kFast, SideFlag::kBit, {2.7e-3, 1.6e-3});
}

TEST(ActivationRaw, SlopesFromSixteenBitOutputs) {
  for (const Activation kind : kKinds) {
    for (const FitQuality quality : {FitQuality::kAccurate, FitQuality::kFast}) {
      expect_slopes<Bf16>(kind, quality, SideFlag::kBit, {1.9e-2, 2.6e-3});
      expect_slopes<Bf16>(kind, quality, SideFlag::kLowBit, {2.8e-2, 3.8e-3});
      expect_slopes<Fp16>(kind, quality, SideFlag::kByte, {8.4e-3, 1.6e-3});
      expect_slopes<Fp16>(kind, quality, SideFlag::kLowBit, {1.2e-2, 1.9e-3});
    }
  }
}

template <class T>
double value_tolerance(double expected) {
  const double unit = std::is_same_v<T, float> ? 1.5 * 0x1p-23 : std::is_same_v<T, Bf16> ? 0x1p-8 : 0x1p-11;
  return unit * std::abs(expected) * 1.01 + (std::is_same_v<T, Fp16> ? 0x1p-25 : 1e-37);
}

// Far left the value is tiny and carries the relative error of an exponential: that of the exponent times its size.
template <class T>
void check_values() {
  const Doubles inputs = rounded<T>(sweep());
  const auto n = static_cast<std::int64_t>(inputs.size());
  for (const Activation kind : kKinds) {
    SCOPED_TRACE(kKindNames[static_cast<int>(kind)]);
    for (const auto& version : GANTRY_ISA_VERSIONS(activation_forward<T>)) {
      SCOPED_TRACE(base::isa_name(version.isa));
      Guarded<T> x(inputs), y(n);
      version.run({kind, SideFlag::kNone, x.data(), y.data(), nullptr}, 0, n);
      ASSERT_TRUE(y.intact());
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const double expected = exact(kind, inputs[i]).value;
        const double far = inputs[i] < -1 ? 2e-7 * inputs[i] * inputs[i] * std::abs(expected) : 0;
        ASSERT_NEAR(value_of(y.data()[i]), expected, value_tolerance<T>(expected) + far) << inputs[i];
      }
    }
  }
}

TEST(ActivationRaw, ValuesAreWithinOneAndAHalfUnitsInTheLastPlace) {
  check_values<float>();
  check_values<Bf16>();
  check_values<Fp16>();
}

// A flag in the last bit moves negative outputs by at most one unit and leaves the others alone.
TEST(ActivationRaw, TheLastBitMovesNegativeOutputsByOneUnit) {
  const Doubles inputs = rounded<float>(sweep());
  const auto n = static_cast<std::int64_t>(inputs.size());
  for (const Activation kind : kKinds) {
    for (const auto& version : GANTRY_ISA_VERSIONS(activation_forward<float>)) {
      SCOPED_TRACE(base::isa_name(version.isa));
      Guarded<float> x(inputs), plain(n), marked(n);
      version.run({kind, SideFlag::kNone, x.data(), plain.data(), nullptr}, 0, n);
      version.run({kind, SideFlag::kLowBit, x.data(), marked.data(), nullptr}, 0, n);
      for (std::int64_t i = 0; i < n; ++i) {
        const float a = plain.data()[i], b = marked.data()[i];
        if (a >= 0) {
          ASSERT_EQ(a, b);
        } else {
          const auto distance = static_cast<std::int64_t>(std::bit_cast<std::uint32_t>(a)) -
                                static_cast<std::int64_t>(std::bit_cast<std::uint32_t>(b));
          ASSERT_LE(std::abs(distance), 1) << inputs[static_cast<std::size_t>(i)];
        }
      }
    }
  }
}

template <class T>
void check_extremes(SideFlag side) {
  SCOPED_TRACE(kSideNames[static_cast<int>(side)]);
  const Doubles inputs = extreme_inputs<T>();
  const auto n = static_cast<std::int64_t>(inputs.size());
  const Guarded<T> ones(Doubles(inputs.size(), 1.0));
  for (const Activation kind : kKinds) {
    SCOPED_TRACE(kKindNames[static_cast<int>(kind)]);
    const auto forwards = GANTRY_ISA_VERSIONS(activation_forward<T>);
    const auto backwards = GANTRY_ISA_VERSIONS(activation_backward<T>);
    for (std::size_t v = 0; v < forwards.size(); ++v) {
      SCOPED_TRACE(base::isa_name(forwards[v].isa));
      for (const FitQuality quality : {FitQuality::kAccurate, FitQuality::kFast}) {
        Guarded<T> y(inputs), g(n);
        std::vector<std::uint8_t> flags(inputs.size());
        forwards[v].run({kind, side, y.data(), y.data(), flags.data()}, 0, n);
        backwards[v].run({kind, quality, side, y.data(), ones.data(), g.data(), flags.data()}, 0, n);
        expect_extremes<T>(y.values(), g.values(), quality == FitQuality::kFast ? 3e-3 : 1e-5);
      }
    }
  }
}

TEST(ActivationRaw, NanInfinitiesZerosAndHugeInputs) {
  for (const SideFlag side : kSides) {
    check_extremes<float>(side);
    check_extremes<Bf16>(side);
    check_extremes<Fp16>(side);
  }
}

template <class T>
void check_lengths() {
  for (const std::int64_t n : kLengths) {
    const Doubles inputs = rounded<T>(normal(n, 5, 2.0)), gradients = rounded<T>(normal(n, 6));
    for (const SideFlag side : kSides) {
      const auto forwards = GANTRY_ISA_VERSIONS(activation_forward<T>);
      const auto backwards = GANTRY_ISA_VERSIONS(activation_backward<T>);
      for (std::size_t v = 0; v < forwards.size(); ++v) {
        SCOPED_TRACE(base::isa_name(forwards[v].isa));
        // One call, and two that meet at a block's edge.
        Guarded<T> whole(inputs), parts(inputs), dx(n), in_place(gradients);
        const Guarded<T> dy(gradients);
        std::vector<std::uint8_t> flags(flag_bytes(side, static_cast<std::size_t>(n)) + 1, 0), other = flags;
        const std::int64_t middle = std::min(n, kActivationBlock);
        const Activation kind = Activation::kSilu;
        forwards[v].run({kind, side, whole.data(), whole.data(), flags.data()}, 0, n);
        forwards[v].run({kind, side, parts.data(), parts.data(), other.data()}, middle, n);
        forwards[v].run({kind, side, parts.data(), parts.data(), other.data()}, 0, middle);
        EXPECT_EQ(whole.values(), parts.values());
        EXPECT_EQ(flags, other);
        const FitQuality quality = FitQuality::kAccurate;
        backwards[v].run({kind, quality, side, whole.data(), dy.data(), dx.data(), flags.data()}, 0, n);
        backwards[v].run({kind, quality, side, whole.data(), in_place.data(), in_place.data(), flags.data()}, 0, n);
        EXPECT_EQ(dx.values(), in_place.values());
        EXPECT_TRUE(whole.intact() && parts.intact() && dx.intact() && in_place.intact());
      }
    }
  }
}

TEST(ActivationRaw, OddLengthsPiecesAndInPlaceGradients) {
  check_lengths<float>();
  check_lengths<Bf16>();
  check_lengths<Fp16>();
}

template <class T>
void check_exact_form() {
  const Doubles inputs = rounded<T>(sweep());
  const auto n = static_cast<std::int64_t>(inputs.size());
  const Guarded<T> ones(Doubles(inputs.size(), 1.0));
  const double unit = std::is_same_v<T, float> ? 5e-7 : std::is_same_v<T, Bf16> ? 0x1p-8 : 0x1p-11;
  for (const Activation kind : kKinds) {
    SCOPED_TRACE(kKindNames[static_cast<int>(kind)]);
    const auto backwards = GANTRY_ISA_VERSIONS(activation_exact_backward<T>);
    const auto forwards = GANTRY_ISA_VERSIONS(activation_forward<T>);
    for (std::size_t v = 0; v < backwards.size(); ++v) {
      SCOPED_TRACE(base::isa_name(backwards[v].isa));
      Guarded<T> x(inputs), y(n), dx(n);
      forwards[v].run({kind, SideFlag::kNone, x.data(), y.data(), nullptr}, 0, n);
      backwards[v].run({kind, x.data(), ones.data(), dx.data(), x.data()}, 0, n);
      const Doubles again = x.values(), first = y.values();
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const double last_bit = (std::is_same_v<T, float> ? 0x1p-23 : unit * 2) * std::abs(first[i]);
        ASSERT_NEAR(again[i], first[i], last_bit + (std::is_same_v<T, Fp16> ? 0x1p-24 : 1e-30)) << inputs[i];
        const double expected = exact(kind, inputs[i]).slope;
        ASSERT_NEAR(value_of(dx.data()[i]), expected, unit * (1 + std::abs(expected))) << inputs[i];
      }
    }
  }
}

TEST(ActivationRaw, ExactFormMatchesAndRegeneratesTheOutput) {
  check_exact_form<float>();
  check_exact_form<Bf16>();
  check_exact_form<Fp16>();
}

// The oracle itself: central differences of f, and the inverse by Newton's method against the input's own slope.
TEST(ActivationRaw, Fp64SlopesMatchDifferencesAndSurviveTheInverse) {
  for (const Activation kind : kKinds) {
    for (const SideFlag side : kSides) {
      for (double x = -11.987; x < 20; x += 0.0731) {
        const double h = 1e-5, one = 1;
        const double difference = (exact(kind, x + h).value - exact(kind, x - h).value) / (2 * h);
        EXPECT_NEAR(exact(kind, x).slope, difference, 1e-9);
        double y = 0, slope = 0;
        std::uint8_t flag = 0;
        activation_forward_fp64({kind, side, &x, &y, &flag}, 0, 1);
        activation_backward_fp64({kind, FitQuality::kAccurate, side, &y, &one, &slope, &flag}, 0, 1);
        EXPECT_NEAR(slope, exact(kind, x).slope, 1e-7) << x;
      }
    }
  }
}

// The tables at their own points: what the signed-root fit promises before any rounding (design, section 2.4).
TEST(ActivationRaw, TablesKeepTheirMinimaxErrors) {
  struct Row {
    Activation kind;
    const fit::Table& table;
    double core, tail, left, fast;
  };
  // A quarter above the page's figures: coefficients are rounded to fp32.
  const Row rows[] = {{Activation::kGeluErf, fit::kErf, 5.2e-7, 7.2e-6, 6e-7, 1.92e-3},
                      {Activation::kGeluTanh, fit::kTanh, 5.4e-7, 7.2e-6, 4e-7, 2.26e-3},
                      {Activation::kSilu, fit::kSilu, 3e-7, 1.65e-5, 5e-7, 3.6e-4}};
  const auto at = [](const auto& table, double x) {
    double sum = 0;
    for (int i = static_cast<int>(std::size(table)) - 1; i >= 0; --i) sum = sum * x + static_cast<double>(table[i]);
    return sum;
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(kKindNames[static_cast<int>(row.kind)]);
    const fit::Table& t = row.table;
    const double minimum = static_cast<double>(t.y_min) + static_cast<double>(t.y_min_low);
    double core = 0, tail = 0, left = 0, fast = 0;
    for (double x = -12; x < 17; x += 1e-3) {
      const auto [y, g] = exact(row.kind, x);
      const double u = std::copysign(std::sqrt(std::max(0.0, y - minimum)), x - static_cast<double>(t.x_min));
      const double w = std::sqrt(std::max(0.0, std::log(minimum / std::min(y, -1e-300))));
      const auto keep = [g = g](double& worst, double value) { worst = std::max(worst, std::abs(value - g)); };
      if (u > 0 && y <= t.core_end) keep(core, at(t.core, u));
      const double along = t.tail_y * y + t.tail_u * u - t.tail_centre;
      if (u > 0 && y > t.core_end && y < t.tail_end) keep(tail, at(t.tail, along));
      if (u < 0 && w < 4.85) keep(left, y * at(t.left, w));
      if (y <= t.fast_end && (u > 0 || w < 4.85)) keep(fast, at(t.fast, u));
    }
    EXPECT_LE(core, row.core);
    EXPECT_LE(tail, row.tail);
    EXPECT_LE(left, row.left);
    EXPECT_LE(fast, row.fast);
  }
}

/// Largest error of the tables by pieces before any rounding of y, over both sides.
template <int kTerms>
double piece_error(Activation kind, const fit::Table& table, const fit::Pieces<kTerms>& pieces) {
  const double minimum = static_cast<double>(table.y_min) + static_cast<double>(table.y_min_low);
  double worst = 0;
  for (double x = -12; x < 17; x += 1e-3) {
    const auto [y, g] = exact(kind, x);
    const bool left = x < static_cast<double>(table.x_min);
    const double root = left ? std::sqrt(std::max(0.0, std::log(minimum / std::min(y, -1e-300))))
                             : static_cast<double>(pieces.root_scale) * std::sqrt(std::max(0.0, y - minimum));
    const double steps = std::min(root * static_cast<double>(pieces.inverse_step), fit::kPieces - 0.51);
    const double n = std::round(steps);
    double sum = 0;
    for (int i = kTerms - 1; i >= 0; --i) {
      sum = sum * (steps - n) + static_cast<double>(pieces.terms[i][static_cast<int>(n) + (left ? fit::kPieces : 0)]);
    }
    worst = std::max(worst, std::abs((left ? y : 1) * sum - g));
  }
  return worst;
}

TEST(ActivationRaw, PiecesKeepTheirMinimaxErrors) {
  // A quarter above the fits: coefficients are rounded to fp32. GELU's slope is 1 + 7.5e-6 where the constant 1 begins.
  EXPECT_LE(piece_error(Activation::kGeluErf, fit::kErf, fit::kErfPieces), 7.6e-6);
  EXPECT_LE(piece_error(Activation::kGeluTanh, fit::kTanh, fit::kTanhPieces), 7.6e-6);
  EXPECT_LE(piece_error(Activation::kSilu, fit::kSilu, fit::kSiluPieces), 3.5e-6);
  EXPECT_LE(piece_error(Activation::kGeluErf, fit::kErf, fit::kShortErfPieces), 1.7e-4);
  EXPECT_LE(piece_error(Activation::kGeluTanh, fit::kTanh, fit::kShortTanhPieces), 1.8e-4);
  EXPECT_LE(piece_error(Activation::kSilu, fit::kSilu, fit::kShortSiluPieces), 3.7e-4);
}

}  // namespace
}  // namespace gantry::kernels
