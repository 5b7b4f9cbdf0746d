// The vector helpers that all raw kernels build on, compiled for the baseline instruction set.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/linear/linear_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

// Always through memory, so that no vector crosses a function's boundary.
std::vector<float> exp_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  scalar::for_vectors(static_cast<std::int64_t>(x.size()), [&](std::int64_t i, std::int64_t count) {
    scalar::set(y.data() + i, scalar::exp(scalar::get(x.data() + i, count)), count);
  });
  return y;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SimdRaw, ExpIsWithinTwoUlpsWhereResultsAreNormal) {
  std::vector<float> x;
  for (double value = -87.3; value < 88.7; value += 0.00037) x.push_back(static_cast<float>(value));
  const std::vector<float> y = exp_of(x);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(y[i] - expected) / expected);
  }
  EXPECT_LT(worst, 2e-7);
}

TEST(SimdRaw, ExpOfExtremes) {
  const std::vector<float> y =
      exp_of({0.0f, -0.0f, kInfinity, -kInfinity, std::nanf(""), 1e30f, -1e30f, 88.8f, -200.0f});
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], kInfinity);
  EXPECT_EQ(y[3], 0.0f);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], kInfinity);
  EXPECT_EQ(y[6], 0.0f);
  EXPECT_EQ(y[7], kInfinity);
  EXPECT_EQ(y[8], 0.0f);
}

TEST(SimdRaw, ExpReachesDenormalsWithoutLeavingThem) {
  std::vector<float> x;
  for (double value = -95; value < -87; value += 0.01) x.push_back(static_cast<float>(value));
  const std::vector<float> y = exp_of(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = x[i] < -88.0f ? 0.0 : std::exp(static_cast<double>(x[i]));
    ASSERT_NEAR(y[i], expected, 3e-45 + expected * 2e-7) << x[i];
  }
}

TEST(SimdRaw, Bf16RoundsToNearestEvenAsTheScalarConversion) {
  std::vector<float> values{0.0f,        -0.0f,       kInfinity, -kInfinity, std::nanf(""),
                            1.00390625f, 1.01171875f, 3.4e38f,   1e-40f};
  for (const double x : normal(1000, 1, 100)) values.push_back(static_cast<float>(x));
  std::vector<Bf16> vectors(values.size());
  scalar::for_vectors(static_cast<std::int64_t>(values.size()), [&](std::int64_t i, std::int64_t count) {
    scalar::set(vectors.data() + i, scalar::get(values.data() + i, count), count);
  });
  for (std::size_t i = 0; i < values.size(); ++i) {
    Bf16 one;
    scalar::from_float(&one, values[i]);
    ASSERT_EQ(vectors[i].bits, base::float_to_bf16(values[i])) << values[i];
    ASSERT_EQ(one.bits, base::float_to_bf16(values[i])) << values[i];
  }
}

template <class T>
void check_small_linear(std::int64_t rows, std::int64_t k, bool with_bias) {
  constexpr std::int64_t kColumns = 11, kStride = 14;
  const Doubles x = rounded<T>(normal(rows * k, 2)), w = rounded<T>(normal(kColumns * k, 3));
  const Doubles b = rounded<T>(normal(kColumns, 4));
  Doubles expected(static_cast<std::size_t>(rows * kStride), 42.0);  // columns beyond the range stay as they were
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t n = 0; n < kColumns; ++n) {
      double sum = with_bias ? b[static_cast<std::size_t>(n)] : 0.0;
      for (std::int64_t i = 0; i < k; ++i) {
        sum += x[static_cast<std::size_t>(r * k + i)] * w[static_cast<std::size_t>(n * k + i)];
      }
      expected[static_cast<std::size_t>(r * kStride + n)] = sum;
    }
  }
  const Guarded<T> input(x), weight(w), bias(b);
  const auto orders = GANTRY_ISA_VERSIONS(deinterleave<T>);
  const auto versions = GANTRY_ISA_VERSIONS(small_linear<T>);
  for (std::size_t v = 0; v < versions.size(); ++v) {
    SCOPED_TRACE(base::isa_name(versions[v].isa));
    Guarded<float> order(rows * k);
    for (std::int64_t r = 0; r < rows; ++r) orders[v].run(input.data() + r * k, k, order.data() + r * k);
    EXPECT_TRUE(order.intact());
    Guarded<T> y(Doubles(static_cast<std::size_t>(rows * kStride), 42.0));
    const SmallLinearArgs<T> args{.x = order.data(),
                                  .rows = rows,
                                  .k = k,
                                  .w = weight.data(),
                                  .bias = with_bias ? bias.data() : nullptr,
                                  .y = y.data(),
                                  .y_stride = kStride};
    versions[v].run(args, 0, 3);
    versions[v].run(args, 3, kColumns);
    expect_near(y, expected, std::sqrt(static_cast<double>(k)));
  }
}

TEST(SmallLinearRaw, MatchesDoublesForEveryRowCountAndOddLengths) {
  for_both_types([]<class T>() {
    for (const std::int64_t k : kLengths) {
      for (std::int64_t rows = 1; rows <= kMaxSmallRows; ++rows) {
        SCOPED_TRACE(::testing::Message() << rows << " rows of " << k);
        check_small_linear<T>(rows, k, rows % 2 == 0);
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
