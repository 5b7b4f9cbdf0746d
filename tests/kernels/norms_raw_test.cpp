// Raw normalisations against plain double-precision loops, for every instruction set that this processor has.
#include "gantry/kernels/layer_norm/layer_norm_raw.h"
#include "gantry/kernels/rms_norm/rms_norm_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct NormData {
  std::int64_t n;
  Doubles x, residual, weight, bias, dy, dsum;
};

template <class T>
NormData norm_data(std::int64_t n, double mean = 0.3) {
  NormData data{n,
                rounded<T>(normal(kRows * n, 1, 1.5, mean)),
                rounded<T>(normal(kRows * n, 2)),
                rounded<T>(normal(n, 3, 0.5, 1.0)),
                rounded<T>(normal(n, 4)),
                rounded<T>(normal(kRows * n, 5)),
                rounded<T>(normal(kRows * n, 6))};
  for (std::int64_t i = 0; i < n; ++i) data.x[static_cast<std::size_t>(3 * n + i)] = 0;  // a row of zeros
  return data;
}

// Mean (0 for RMS norm) and reciprocal deviation of each row.
struct RowMoments {
  Doubles mean, rstd;
};

RowMoments moments(const Doubles& x, std::int64_t n, double eps, bool centred) {
  RowMoments result;
  for (std::int64_t row = 0; row < kRows; ++row) {
    const double* values = x.data() + row * n;
    double mean = 0, squares = 0;
    for (std::int64_t i = 0; centred && i < n; ++i) mean += values[i] / static_cast<double>(n);
    for (std::int64_t i = 0; i < n; ++i) squares += (values[i] - mean) * (values[i] - mean);
    result.mean.push_back(mean);
    result.rstd.push_back(1.0 / std::sqrt(squares / static_cast<double>(n) + eps));
  }
  return result;
}

Doubles norm_output(const NormData& data, const Doubles& x, const RowMoments& m, bool with_bias) {
  Doubles y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(data.n), column = i % static_cast<std::size_t>(data.n);
    y.push_back((x[i] - m.mean[row]) * m.rstd[row] * data.weight[column] + (with_bias ? data.bias[column] : 0.0));
  }
  return y;
}

struct NormGradients {
  Doubles dx, dweight, dbias;
};

// d/dx of sum(dy * (x - mean) * rstd * weight); the mean's share is left out for RMS norm.
NormGradients norm_gradients(const NormData& data, const RowMoments& m, bool centred) {
  const auto n = static_cast<std::size_t>(data.n);
  NormGradients result{Doubles(data.x.size()), Doubles(n), Doubles(n)};
  for (std::size_t row = 0; row < static_cast<std::size_t>(kRows); ++row) {
    double mean_g = 0, mean_gx = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double g = data.dy[row * n + i], normal = (data.x[row * n + i] - m.mean[row]) * m.rstd[row];
      result.dweight[i] += g * normal;
      result.dbias[i] += g;
      mean_g += centred ? g * data.weight[i] / static_cast<double>(n) : 0.0;
      mean_gx += g * data.weight[i] * normal / static_cast<double>(n);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const double normal = (data.x[row * n + i] - m.mean[row]) * m.rstd[row];
      result.dx[row * n + i] =
          (data.dy[row * n + i] * data.weight[i] - mean_g - normal * mean_gx) * m.rstd[row] + data.dsum[row * n + i];
    }
  }
  return result;
}

template <class T>
Doubles sum_of(const Doubles& a, const Doubles& b) {
  Doubles sum;
  for (std::size_t i = 0; i < a.size(); ++i) sum.push_back(a[i] + b[i]);
  return rounded<T>(sum);
}

template <class T>
void check_rms_forward(std::int64_t n, bool with_residual) {
  const NormData data = norm_data<T>(n);
  const Doubles input = with_residual ? sum_of<T>(data.x, data.residual) : data.x;
  const RowMoments m = moments(input, n, 1e-5, false);
  const Guarded<T> x(data.x), residual(data.residual), weight(data.weight);
  for (const auto& version : GANTRY_ISA_VERSIONS(rms_norm_forward<T>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> sum(kRows * n), y(kRows * n);
    Guarded<float> rstd(kRows);
    run_rows(version.run, RmsNormForwardArgs<T>{.x = x.data(),
                                                .residual = with_residual ? residual.data() : nullptr,
                                                .sum = with_residual ? sum.data() : nullptr,
                                                .weight = weight.data(),
                                                .y = y.data(),
                                                .rstd = rstd.data(),
                                                .n = n,
                                                .eps = 1e-5f});
    expect_near(y, norm_output(data, input, m, false));
    expect_near(rstd, m.rstd);
    if (with_residual) expect_near(sum, input);
  }
}

TEST(RmsNormRaw, ForwardMatchesDoubles) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      check_rms_forward<T>(n, false);
      check_rms_forward<T>(n, true);
    }
  });
}

// The gradient of a row of zeros scales with rstd = 1 / sqrt(eps), so bounds follow the largest rstd.
TEST(RmsNormRaw, BackwardMatchesDoublesAndAddsToItsSums) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const NormData data = norm_data<T>(n);
      const RowMoments m = moments(data.x, n, 0.01, false);
      NormGradients expected = norm_gradients(data, m, false);
      for (auto& value : expected.dweight) value += 7.0;
      const Guarded<T> dy(data.dy), x(data.x), weight(data.weight), dsum(data.dsum);
      const Guarded<float> rstd(m.rstd);
      for (const auto& version : GANTRY_ISA_VERSIONS(rms_norm_backward<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Guarded<T> dx(kRows * n);
        Guarded<float> dweight(Doubles(static_cast<std::size_t>(n), 7.0));
        run_rows(version.run, RmsNormBackwardArgs<T>{dy.data(), x.data(), rstd.data(), weight.data(), dsum.data(),
                                                     dx.data(), dweight.data(), n});
        expect_near(dx, expected.dx, 10.0);
        expect_near(dweight, expected.dweight);
      }
    }
  });
}

template <class T>
void check_layer_forward(std::int64_t n, bool with_residual) {
  const NormData data = norm_data<T>(n, 2.0);
  const Doubles input = with_residual ? sum_of<T>(data.x, data.residual) : data.x;
  const RowMoments m = moments(input, n, 1e-3, true);
  const Guarded<T> x(data.x), residual(data.residual), weight(data.weight), bias(data.bias);
  for (const auto& version : GANTRY_ISA_VERSIONS(layer_norm_forward<T>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> sum(kRows * n), y(kRows * n);
    Guarded<float> mean(kRows), rstd(kRows);
    run_rows(version.run, LayerNormForwardArgs<T>{.x = x.data(),
                                                  .residual = with_residual ? residual.data() : nullptr,
                                                  .sum = with_residual ? sum.data() : nullptr,
                                                  .weight = weight.data(),
                                                  .bias = bias.data(),
                                                  .y = y.data(),
                                                  .mean = mean.data(),
                                                  .rstd = rstd.data(),
                                                  .n = n,
                                                  .eps = 1e-3f});
    expect_near(y, norm_output(data, input, m, true));
    expect_near(mean, m.mean);
    expect_near(rstd, m.rstd);
    if (with_residual) expect_near(sum, input);
  }
}

TEST(LayerNormRaw, ForwardMatchesDoubles) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      check_layer_forward<T>(n, false);
      check_layer_forward<T>(n, true);
    }
  });
}

TEST(LayerNormRaw, BackwardMatchesDoublesAndAddsToItsSums) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const NormData data = norm_data<T>(n);
      const RowMoments m = moments(data.x, n, 0.01, true);
      NormGradients expected = norm_gradients(data, m, true);
      for (auto& value : expected.dweight) value -= 3.0;
      for (auto& value : expected.dbias) value += 5.0;
      const Guarded<T> dy(data.dy), x(data.x), weight(data.weight), dsum(data.dsum);
      const Guarded<float> mean(m.mean), rstd(m.rstd);
      for (const auto& version : GANTRY_ISA_VERSIONS(layer_norm_backward<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Guarded<T> dx(kRows * n);
        Guarded<float> dweight(Doubles(static_cast<std::size_t>(n), -3.0));
        Guarded<float> dbias(Doubles(static_cast<std::size_t>(n), 5.0));
        run_rows(version.run, LayerNormBackwardArgs<T>{dy.data(), x.data(), mean.data(), rstd.data(), weight.data(),
                                                       dsum.data(), dx.data(), dweight.data(), dbias.data(), n});
        expect_near(dx, expected.dx, 10.0);
        expect_near(dweight, expected.dweight);
        expect_near(dbias, expected.dbias);
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
