// The blocked matrix product against plain sums in double precision, for every instruction set that this processor has.
#include "gantry/kernels/gemm/gemm_raw.h"

#include <array>
#include <limits>
#include <string>

#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Case {
  std::int64_t m, n, k;
  bool a_transposed, b_transposed;
  std::int64_t pad;  // unused elements between rows
};

std::string name(const Case& c) {
  return std::to_string(c.m) + " x " + std::to_string(c.n) + " x " + std::to_string(c.k) +
         (c.a_transposed ? ", A^T" : "") + (c.b_transposed ? ", B^T" : "") + ", padded by " + std::to_string(c.pad);
}

std::vector<IsaVersion<decltype(&scalar::gemm)>> versions() {
  auto usable = GANTRY_ISA_VERSIONS(gemm);
#if defined(__x86_64__)
  if (base::best_isa() >= base::Isa::kAmx) usable.push_back({base::Isa::kAmx, &amx::gemm});
#endif
  return usable;
}

// Tiles of 8 x 48, 6 x 16 and 32 x 32; blocks of 512 or 128 along k, 384 or 1024 columns, 64 rows.
std::vector<Case> cases() {
  const std::vector<std::array<std::int64_t, 3>> shapes{{1, 1, 1},     {8, 48, 16},    {7, 47, 15},
                                                        {9, 49, 17},   {65, 33, 100},  {13, 400, 31},
                                                        {70, 97, 513}, {3, 385, 1030}, {37, 1060, 161}};
  std::vector<Case> result;
  for (const auto& [m, n, k] : shapes) {
    for (const int layout : {0, 1, 2, 3}) {
      for (const std::int64_t pad : {0, 5}) result.push_back({m, n, k, (layout & 1) != 0, (layout & 2) != 0, pad});
    }
  }
  return result;
}

// Random operands and their product; what lies between rows is NaN, which must not get into any sum.
struct Problem {
  explicit Problem(const Case& c)
      : a(matrix(c.a_transposed ? c.k : c.m, c.a_transposed ? c.m : c.k, c.pad, 1)),
        b(matrix(c.b_transposed ? c.n : c.k, c.b_transposed ? c.k : c.n, c.pad, 2)),
        bias(normal(c.n, 3)),
        before(normal(c.m * c.n, 4)) {
    args.a = a.data();
    args.b = b.data();
    args.a_transposed = c.a_transposed;
    args.b_transposed = c.b_transposed;
    args.a_stride = (c.a_transposed ? c.m : c.k) + c.pad;
    args.b_stride = (c.b_transposed ? c.k : c.n) + c.pad;
    args.c_stride = c.n + c.pad;
    args.k = c.k;
    for (std::int64_t i = 0; i < c.m; ++i) {
      for (std::int64_t j = 0; j < c.n; ++j) {
        double sum = 0;
        for (std::int64_t p = 0; p < c.k; ++p) {
          sum += static_cast<double>(args.a[c.a_transposed ? p * args.a_stride + i : i * args.a_stride + p]) *
                 args.b[c.b_transposed ? j * args.b_stride + p : p * args.b_stride + j];
        }
        product.push_back(sum);
      }
    }
  }

  static Guarded<float> matrix(std::int64_t rows, std::int64_t columns, std::int64_t pad, std::uint64_t seed) {
    const Doubles values = normal(rows * columns, seed);
    Guarded<float> result(rows * (columns + pad));
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      result.data()[i / columns * (columns + pad) + i % columns] =
          static_cast<float>(values[static_cast<std::size_t>(i)]);
    }
    return result;
  }

  Guarded<float> a, b, bias;
  Doubles before, product;
  GemmArgs args{};
};

// The product of [m, k] and [k, n], row by row.
std::vector<float> multiply(decltype(&scalar::gemm) run, const std::vector<float>& a, const std::vector<float>& b,
                            std::int64_t m, std::int64_t n, std::int64_t k, const std::vector<GemmRange>& cut) {
  std::vector<float> c(static_cast<std::size_t>(m * n)), scratch(static_cast<std::size_t>(kGemmScratch));
  GemmArgs args{};
  args.a = a.data();
  args.a_stride = args.k = k;
  args.b = b.data();
  args.c = c.data();
  args.b_stride = args.c_stride = n;
  for (const GemmRange& range : cut) run(args, range, scratch.data());
  return c;
}

std::vector<float> floats(const Doubles& values) { return {values.begin(), values.end()}; }

enum class Mode { kOverwrite, kBias, kAccumulate };

void check(const Case& c, Problem& problem, decltype(&scalar::gemm) run, Mode mode) {
  Guarded<float> result(c.m * (c.n + c.pad)), scratch(kGemmScratch);
  GemmArgs args = problem.args;
  args.c = result.data();
  args.accumulate = mode == Mode::kAccumulate;
  args.bias = mode == Mode::kBias ? problem.bias.data() : nullptr;
  for (std::int64_t i = 0; args.accumulate && i < c.m * c.n; ++i) {
    args.c[i / c.n * args.c_stride + i % c.n] = static_cast<float>(problem.before[static_cast<std::size_t>(i)]);
  }
  run(args, {0, c.m, 0, c.n}, scratch.data());
  EXPECT_TRUE(result.intact() && scratch.intact()) << "wrote outside its range";
  for (std::int64_t i = 0; i < c.m * c.n; ++i) {
    double expected = problem.product[static_cast<std::size_t>(i)];
    if (mode == Mode::kBias) expected += problem.bias.data()[i % c.n];
    if (mode == Mode::kAccumulate) expected += problem.before[static_cast<std::size_t>(i)];
    const double bound = 2e-6 * (std::sqrt(static_cast<double>(c.k)) + std::abs(expected));
    ASSERT_NEAR(result.data()[i / c.n * args.c_stride + i % c.n], expected, bound) << "element " << i;
  }
  for (std::int64_t i = 0; i < result.size(); ++i) {
    ASSERT_TRUE(i % args.c_stride < c.n || std::isnan(result.data()[i])) << "wrote between rows at " << i;
  }
}

TEST(GemmRaw, EveryLayoutAndModeMatchesDoubles) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(name(c));
    Problem problem(c);
    for (const auto& version : versions()) {
      SCOPED_TRACE(base::isa_name(version.isa));
      // Without accumulation C starts as NaN: reading it would show.
      for (const auto mode : {Mode::kOverwrite, Mode::kBias, Mode::kAccumulate}) {
        check(c, problem, version.run, mode);
      }
    }
  }
}

TEST(GemmRaw, AnyCutGivesTheSameBitsAndTouchesNothingElse) {
  const Case c{77, 410, 700, false, true, 3};
  Problem problem(c);
  for (const auto& version : versions()) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<float> whole(c.m * (c.n + c.pad)), parts(c.m * (c.n + c.pad)), scratch(kGemmScratch);
    GemmArgs args = problem.args;
    args.c = whole.data();
    version.run(args, {0, c.m, 0, c.n}, scratch.data());
    args.c = parts.data();
    version.run(args, {5, 70, 7, 401}, scratch.data());
    EXPECT_TRUE(std::isnan(parts.data()[4 * args.c_stride + 7]) && std::isnan(parts.data()[5 * args.c_stride + 6]));
    EXPECT_TRUE(std::isnan(parts.data()[70 * args.c_stride + 7]) && std::isnan(parts.data()[5 * args.c_stride + 401]));
    for (const GemmRange range : {GemmRange{0, 5, 0, c.n}, GemmRange{70, c.m, 0, c.n}, GemmRange{5, 70, 0, 7},
                                  GemmRange{5, 70, 401, c.n}, GemmRange{9, 9, 0, c.n}, GemmRange{0, c.m, 8, 8}}) {
      version.run(args, range, scratch.data());
    }
    EXPECT_EQ(std::memcmp(whole.data(), parts.data(), static_cast<std::size_t>(whole.size()) * sizeof(float)), 0);
  }
}

// Powers of two from 2^-20 to 2^20 with random signs and significands.
std::vector<float> spread(std::int64_t n, std::uint64_t seed) {
  base::CounterRandom random(seed);
  std::vector<float> result(static_cast<std::size_t>(n));
  for (float& x : result) {
    const double magnitude = std::exp2(40 * random.uniform() - 20);
    x = static_cast<float>(random.uniform() < 0.5 ? -magnitude : magnitude);
  }
  return result;
}

TEST(GemmRaw, SingleProductsHaveTheBitsOfFp32) {
  constexpr std::int64_t kExtent = 64;
  const auto a = spread(kExtent, 5), b = spread(kExtent, 6);
  for (const auto& version : versions()) {
    const auto c = multiply(version.run, a, b, kExtent, kExtent, 1, {{0, kExtent, 0, kExtent}});
    for (std::int64_t i = 0; i < kExtent * kExtent; ++i) {
      const auto at = [](const std::vector<float>& x, std::int64_t j) {
        return double{x[static_cast<std::size_t>(j)]};
      };
      const double expected = at(a, i / kExtent) * at(b, i % kExtent);
      ASSERT_LE(std::abs(at(c, i) - expected), 0x1p-23 * std::abs(expected))
          << base::isa_name(version.isa) << ": got " << at(c, i) << ", expected " << expected;
    }
  }
}

// The error of sums over k, root mean square, relative to the sums' size.
double error_of_sums(decltype(&scalar::gemm) run, std::int64_t k) {
  constexpr std::int64_t kExtent = 96;
  const auto a = floats(normal(kExtent * k, 7)), b = floats(normal(k * kExtent, 8));
  const auto c = multiply(run, a, b, kExtent, kExtent, k, {{0, kExtent, 0, kExtent}});
  double error = 0, size = 0;
  for (std::size_t i = 0; i < kExtent; ++i) {
    for (std::size_t j = 0; j < kExtent; ++j) {
      double sum = 0;
      for (std::size_t p = 0; p < static_cast<std::size_t>(k); ++p) {
        sum += double{a[i * static_cast<std::size_t>(k) + p]} * b[p * kExtent + j];
      }
      error += (c[i * kExtent + j] - sum) * (c[i * kExtent + j] - sum);
      size += sum * sum;
    }
  }
  return std::sqrt(error / size);
}

TEST(GemmRaw, PartsOfBf16AreAsExactAsVectorsOfFp32) {
  if (base::best_isa() < base::Isa::kAmx) GTEST_SKIP() << "no AMX";
#if defined(__x86_64__)
  for (const std::int64_t k : {16, 100, 576, 3000}) {
    const double parts = error_of_sums(&amx::gemm, k), vectors = error_of_sums(&avx512_bf16::gemm, k);
    EXPECT_LT(parts, 1.25 * vectors) << "k = " << k;
    EXPECT_LT(parts, 1e-6) << "k = " << k;
  }
#endif
}

TEST(GemmRaw, WhatIsNotFiniteOrNearlySoGivesTheSumsOfFp32) {
  constexpr std::int64_t kM = 70, kN = 100, kK = 300;
  auto a = floats(normal(kM * kK, 9)), b = floats(normal(kK * kN, 10));
  const float inf = INFINITY, most = std::numeric_limits<float>::max();
  a[3 * kK + 7] = inf;
  a[35 * kK + 299] = -inf;
  a[40 * kK + 150] = most;  // rounds to infinity in bf16
  b[7 * kN + 50] = 0;       // infinity times zero
  b[150 * kN + 60] = -0.5f;
  b[200 * kN + 99] = NAN;
  for (const auto& version : versions()) {
    SCOPED_TRACE(base::isa_name(version.isa));
    const auto c = multiply(version.run, a, b, kM, kN, kK, {{0, kM, 0, kN}});
    const auto parts = multiply(version.run, a, b, kM, kN, kK, {{0, 32, 0, 64}, {32, kM, 0, 64}, {0, kM, 64, kN}});
    EXPECT_EQ(std::memcmp(c.data(), parts.data(), c.size() * sizeof(float)), 0) << "cut into parts";
    for (std::size_t i = 0; i < c.size(); ++i) {
      float sum = 0;
      for (std::size_t p = 0; p < kK; ++p) sum += a[i / kN * kK + p] * b[p * kN + i % kN];
      if (std::isfinite(sum)) {
        ASSERT_NEAR(c[i], sum, 1e-4 * (1 + std::abs(sum))) << "row " << i / kN << ", column " << i % kN;
      } else {
        ASSERT_TRUE(std::isnan(sum) ? std::isnan(c[i]) : c[i] == sum)
            << "row " << i / kN << ", column " << i % kN << ": got " << c[i] << ", expected " << sum;
      }
    }
  }
}

}  // namespace
}  // namespace gantry::kernels
