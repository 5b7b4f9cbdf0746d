// Raw in-place norms and dropout against plain double-precision loops, for every instruction set of this processor.
#include "gantry/kernels/inplace_norm/inplace_norm_raw.h"

#include <algorithm>

#include "gantry/kernels/cpu/philox_raw.h"
#include "gantry/kernels/dropout/dropout_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Case {
  std::int64_t n;
  Doubles x, residual, weight, bias, dy, dsum;
  std::vector<std::int64_t> columns;  // not inverted
  DropoutRule rule;
};

template <class T>
Case make_case(std::int64_t n, double p) {
  Case c{.n = n,
         .x = rounded<T>(normal(kRows * n, 1, 1.5, 0.3)),
         .residual = rounded<T>(normal(kRows * n, 2)),
         .weight = rounded<float>(normal(n, 3, 0.1, 1.0)),
         .bias = rounded<float>(normal(n, 4, 0.3)),
         .dy = rounded<T>(normal(kRows * n, 5)),
         .dsum = rounded<T>(normal(kRows * n, 6)),
         .columns = {},
         .rule = {.seed = 11, .threshold = dropout_threshold(p)}};
  for (std::int64_t i = n / 3; i < n; i += 13) {
    c.columns.push_back(i);
    c.weight[static_cast<std::size_t>(i)] = 0;
  }
  return c;
}

double factor_of(const DropoutRule& rule, std::size_t element) {
  std::uint8_t bit = 0;
  scalar::dropout_keep_bits(rule, element, 1, &bit);
  return bit != 0 ? keep_scale(rule.threshold) : 0.0;
}

struct Expected {
  Doubles v, normal, y, rstd, dv, dx, dweight, dbias;
};

Expected expected_of(const Case& c, bool centred, bool adds) {
  const auto n = static_cast<std::size_t>(c.n);
  const auto count = static_cast<double>(n);
  Expected e;
  e.dweight = e.dbias = Doubles(n);
  for (std::size_t row = 0; row < kRows; ++row) {
    const std::size_t at = row * n;
    double mean = 0, squares = 0, mean_g = 0, mean_gx = 0;
    for (std::size_t i = 0; i < n; ++i) {
      e.v.push_back(c.x[at + i] * factor_of(c.rule, at + i) + (adds ? c.residual[at + i] : 0.0));
      mean += centred ? e.v[at + i] / count : 0.0;
    }
    for (std::size_t i = 0; i < n; ++i) squares += (e.v[at + i] - mean) * (e.v[at + i] - mean);
    e.rstd.push_back(1 / std::sqrt(squares / count + 1e-5));
    for (std::size_t i = 0; i < n; ++i) {
      e.normal.push_back((e.v[at + i] - mean) * e.rstd[row]);
      e.y.push_back(e.normal[at + i] * c.weight[i] + c.bias[i]);
      e.dweight[i] += c.dy[at + i] * e.normal[at + i];
      e.dbias[i] += c.dy[at + i];
      mean_g += centred ? c.dy[at + i] * c.weight[i] / count : 0.0;
      mean_gx += c.dy[at + i] * c.weight[i] * e.normal[at + i] / count;
    }
    for (std::size_t i = 0; i < n; ++i) {
      e.dv.push_back((c.dy[at + i] * c.weight[i] - mean_g - e.normal[at + i] * mean_gx) * e.rstd[row] + c.dsum[at + i]);
      e.dx.push_back(e.dv[at + i] * factor_of(c.rule, at + i));
    }
  }
  return e;
}

template <class T, bool kCentred>
void check_forward(const Case& c, bool adds) {
  const Expected e = expected_of(c, kCentred, adds);
  const auto side_count = static_cast<std::int64_t>(c.columns.size());
  const Guarded<T> x(c.x), residual(c.residual);
  const Guarded<float> weight(c.weight), bias(c.bias);
  for (const auto& version : GANTRY_ISA_VERSIONS(inplace_norm_forward<T, kCentred>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> y(kRows * c.n), normal(kRows * c.n), side(kRows * side_count);
    Guarded<float> rstd(kRows);
    run_rows(version.run, InplaceNormForwardArgs<T>{.x = x.data(),
                                                    .residual = adds ? residual.data() : nullptr,
                                                    .sum = nullptr,
                                                    .weight = weight.data(),
                                                    .bias = bias.data(),
                                                    .y = y.data(),
                                                    .rstd = rstd.data(),
                                                    .side_columns = c.columns.data(),
                                                    .side = side.data(),
                                                    .normal = normal.data(),
                                                    .side_count = side_count,
                                                    .n = c.n,
                                                    .eps = 1e-5f,
                                                    .dropout = c.rule});
    expect_near(y, e.y);
    expect_near(normal, e.normal);
    expect_near(rstd, e.rstd, 100.0);  // a row that is dropped whole has 316
    Doubles sides;
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (const auto column : c.columns) sides.push_back(e.normal[static_cast<std::size_t>(row * c.n + column)]);
    }
    expect_near(side, sides);
  }
}

// `kept`: backward gets the normalised input instead of y.
template <class T, bool kCentred>
void check_backward(const Case& c, bool kept) {
  Expected e = expected_of(c, kCentred, true);
  const Guarded<T> dy(c.dy), dsum(c.dsum), y(e.y), normal(e.normal);
  const Guarded<float> weight(c.weight), bias(c.bias), rstd(e.rstd);
  Doubles inverse, sides;
  for (const double w : c.weight) inverse.push_back(w == 0 ? 0 : 1 / w);
  const Guarded<float> inverses(inverse);
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (const auto column : c.columns) sides.push_back(e.normal[static_cast<std::size_t>(row * c.n + column)]);
  }
  const Guarded<T> side(sides);
  for (const auto& version : GANTRY_ISA_VERSIONS(inplace_norm_backward<T, kCentred>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> dx(kRows * c.n), dv(kRows * c.n);
    Guarded<float> dweight(Doubles(static_cast<std::size_t>(c.n))), dbias(Doubles(static_cast<std::size_t>(c.n)));
    run_rows(version.run, InplaceNormBackwardArgs<T>{.dy = dy.data(),
                                                     .y = kept ? nullptr : y.data(),
                                                     .normal = kept ? normal.data() : nullptr,
                                                     .rstd = rstd.data(),
                                                     .weight = weight.data(),
                                                     .bias = bias.data(),
                                                     .inverse = kept ? nullptr : inverses.data(),
                                                     .side_columns = c.columns.data(),
                                                     .side = side.data(),
                                                     .side_count = kept ? 0 : std::ssize(c.columns),
                                                     .dsum = dsum.data(),
                                                     .dresidual = dv.data(),
                                                     .dx = dx.data(),
                                                     .dweight = dweight.data(),
                                                     .dbias = dbias.data(),
                                                     .n = c.n,
                                                     .dropout = c.rule});
    // Rounding of y to bf16 moves the normalised input by 2^-9 of y, and with it everything.
    const double scale = std::is_same_v<T, Bf16> ? 4000.0 : 4.0;
    expect_near(dv, e.dv, scale);
    expect_near(dx, e.dx, scale);
    expect_near(dweight, e.dweight, scale);
    expect_near(dbias, e.dbias);
  }
}

template <class T>
void check_all(std::int64_t n, double p) {
  const Case c = make_case<T>(n, p);
  for (const bool flag : {false, true}) {
    check_forward<T, true>(c, flag);
    check_forward<T, false>(c, flag);
    if (n == 1) continue;  // its deviation is zero and its gradient the difference of equal numbers
    check_backward<T, true>(c, flag);
    check_backward<T, false>(c, flag);
  }
}

TEST(InplaceNormRaw, ForwardAndBackwardMatchDoubles) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      for (const double p : {0.0, 0.3}) {
        SCOPED_TRACE(n);
        check_all<T>(n, p);
      }
    }
  });
}

// A norm of c.x + c.residual whose 1 / deviation columns [carrier, carrier + 32) can carry; row 2 is constant with p =
// 0.
struct Carrying {
  Carrying(std::int64_t n, std::int64_t carrier, double p) : c(make_case<float>(n, p)), carrier(carrier) {
    std::erase_if(c.columns, [&](std::int64_t i) { return i >= carrier && i < carrier + 32; });
    for (std::int64_t i = carrier; i < carrier + 32; ++i) c.weight[static_cast<std::size_t>(i)] = 1.25;
    if (p == 0) {
      std::fill_n(c.x.begin() + 2 * n, n, 0.0);
      std::fill_n(c.residual.begin() + 2 * n, n, 0.0);
    }
    Doubles reciprocal;
    for (std::int64_t i = 0; i < n; ++i) {
      const bool beside = std::find(c.columns.begin(), c.columns.end(), i) != c.columns.end();
      reciprocal.push_back(beside ? 0 : 1 / c.weight[static_cast<std::size_t>(i)]);
    }
    inverse = Guarded<float>(reciprocal);
    x = Guarded<float>(c.x), residual = Guarded<float>(c.residual), weight = Guarded<float>(c.weight);
    bias = Guarded<float>(c.bias), dy = Guarded<float>(c.dy);
  }

  std::int64_t sides() const { return std::ssize(c.columns); }
  InplaceNormForwardArgs<float> forward(Guarded<float>& y, Guarded<float>& side, float* rstd) const {
    return {.x = x.data(),
            .residual = residual.data(),
            .sum = nullptr,
            .weight = weight.data(),
            .bias = bias.data(),
            .y = y.data(),
            .rstd = rstd,
            .side_columns = c.columns.data(),
            .side = side.data(),
            .normal = nullptr,
            .side_count = sides(),
            .n = c.n,
            .eps = 1e-5f,
            .dropout = c.rule,
            .carrier = carrier};
  }

  // dx, the residual's gradient, dweight and dbias, one behind the other.
  template <class Run>
  Doubles gradients(Run run, const Guarded<float>& y, const Guarded<float>& side, const float* rstd) const {
    Guarded<float> dx(kRows * c.n), dv(kRows * c.n);
    Guarded<float> dweight(Doubles(static_cast<std::size_t>(c.n))), dbias(Doubles(static_cast<std::size_t>(c.n)));
    run_rows(run, InplaceNormBackwardArgs<float>{.dy = dy.data(),
                                                 .y = y.data(),
                                                 .normal = nullptr,
                                                 .rstd = rstd,
                                                 .weight = weight.data(),
                                                 .bias = bias.data(),
                                                 .inverse = inverse.data(),
                                                 .side_columns = c.columns.data(),
                                                 .side = side.data(),
                                                 .side_count = sides(),
                                                 .dsum = nullptr,
                                                 .dresidual = dv.data(),
                                                 .dx = dx.data(),
                                                 .dweight = dweight.data(),
                                                 .dbias = dbias.data(),
                                                 .n = c.n,
                                                 .dropout = c.rule,
                                                 .carrier = carrier,
                                                 .eps = 1e-5f});
    Doubles result;
    for (const auto* each : {&dx, &dv, &dweight, &dbias}) {
      const Doubles values = each->values();
      result.insert(result.end(), values.begin(), values.end());
    }
    return result;
  }

  Case c;
  std::int64_t carrier;
  Guarded<float> x{0}, residual{0}, weight{0}, bias{0}, dy{0}, inverse{0};
};

// Without a place for 1 / deviation it comes back from the last bits of 32 columns of y: the gradients are, bit by bit,
// those of the same y with it beside.
template <bool kCentred>
void check_in_output(const Carrying& problem) {
  const std::int64_t n = problem.c.n;
  const auto forward = GANTRY_ISA_VERSIONS(inplace_norm_forward<float, kCentred>);
  const auto backward = GANTRY_ISA_VERSIONS(inplace_norm_backward<float, kCentred>);
  for (std::size_t v = 0; v < forward.size(); ++v) {
    SCOPED_TRACE(base::isa_name(forward[v].isa));
    Guarded<float> plain(kRows * n), y(kRows * n), side(kRows * problem.sides()), rstd(kRows);
    run_rows(forward[v].run, problem.forward(plain, side, rstd.data()));
    run_rows(forward[v].run, problem.forward(y, side, nullptr));
    for (std::int64_t at = 0; at < y.size(); ++at) {
      const double expected = value_of(plain.data()[at]), got = value_of(y.data()[at]);
      const bool carries = at % n >= problem.carrier && at % n < problem.carrier + 32;
      ASSERT_LE(std::abs(got - expected), carries ? std::abs(expected) * 0x1p-23 : 0.0) << at;
    }
    EXPECT_EQ(problem.gradients(backward[v].run, y, side, nullptr),
              problem.gradients(backward[v].run, y, side, rstd.data()));
    EXPECT_TRUE(y.intact() && side.intact());
  }
}

TEST(InplaceNormRaw, TheDeviationComesBackFromTheOutputsLastBits) {
  for (const auto& [n, carrier] : {std::pair<std::int64_t, std::int64_t>{32, 0}, {33, 1}, {100, 0}, {577, 545}}) {
    for (const double p : {0.0, 0.3}) {
      SCOPED_TRACE(::testing::Message() << n << " columns, from " << carrier << ", p " << p);
      const Carrying problem(n, carrier, p);
      check_in_output<true>(problem);
      check_in_output<false>(problem);
    }
  }
}

// The sum that later layers read is rounded first, and the norm is that of the rounded one.
TEST(InplaceNormRaw, TheStoredSumIsTheOneThatIsNormalised) {
  const Case c = make_case<Bf16>(100, 0.3);
  const Guarded<Bf16> x(c.x), residual(c.residual);
  const Guarded<float> weight(c.weight), bias(c.bias);
  const Expected e = expected_of(c, true, true);
  Case stored_sum = c;
  stored_sum.x = rounded<Bf16>(rounded<float>(e.v));
  stored_sum.rule = {};
  const Expected of_stored = expected_of(stored_sum, true, false);
  for (const auto& version : GANTRY_ISA_VERSIONS(inplace_norm_forward<Bf16, true>)) {
    Guarded<Bf16> y(500), sum(500);
    Guarded<float> rstd(kRows);
    run_rows(version.run, InplaceNormForwardArgs<Bf16>{.x = x.data(),
                                                       .residual = residual.data(),
                                                       .sum = sum.data(),
                                                       .weight = weight.data(),
                                                       .bias = bias.data(),
                                                       .y = y.data(),
                                                       .rstd = rstd.data(),
                                                       .side_columns = nullptr,
                                                       .side = nullptr,
                                                       .normal = nullptr,
                                                       .side_count = 0,
                                                       .n = 100,
                                                       .eps = 1e-5f,
                                                       .dropout = c.rule});
    expect_near(sum, e.v);
    expect_near(y, of_stored.y, 0.2);
  }
}

TEST(DropoutRaw, EveryVersionDropsTheSameElements) {
  for_both_types([]<class T>() {
    for (const std::int64_t count : {1, 8, 17, 1000, 1024, 5001}) {
      const Doubles values = rounded<T>(normal(count, 1));
      const DropoutRule rule{.seed = 3, .stream = 9, .threshold = dropout_threshold(0.25)};
      Doubles expected;
      for (std::size_t i = 0; i < values.size(); ++i) expected.push_back(values[i] * factor_of(rule, i));
      const Guarded<T> x(values);
      const std::int64_t blocks = (count + kDropoutBlock - 1) / kDropoutBlock;
      for (const auto& version : GANTRY_ISA_VERSIONS(dropout_apply<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Guarded<T> y(count), again(count);
        std::vector<std::uint8_t> bits(static_cast<std::size_t>((count + 7) / 8));
        version.run(
            {.x = x.data(), .y = y.data(), .bits = bits.data(), .bits_are_given = false, .count = count, .rule = rule},
            0, blocks);
        expect_near(y, expected);
        version.run({.x = x.data(),
                     .y = again.data(),
                     .bits = bits.data(),
                     .bits_are_given = true,
                     .count = count,
                     .rule = rule},
                    0, blocks);
        EXPECT_EQ(std::memcmp(y.data(), again.data(), static_cast<std::size_t>(count) * sizeof(T)), 0);
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
