// The blocked matrix product against plain sums in double precision, for every instruction set that this processor has.
#include "gantry/kernels/gemm/gemm_raw.h"

#include <array>
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

// Tiles of 8 x 48 and 6 x 16; blocks of 512 along k, 384 columns, 64 rows.
std::vector<Case> cases() {
  const std::vector<std::array<std::int64_t, 3>> shapes{{1, 1, 1},     {8, 48, 16},   {7, 47, 15},   {9, 49, 17},
                                                        {65, 33, 100}, {13, 400, 31}, {70, 97, 513}, {3, 385, 1030}};
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
    for (const auto& version : GANTRY_ISA_VERSIONS(gemm)) {
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
  for (const auto& version : GANTRY_ISA_VERSIONS(gemm)) {
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

}  // namespace
}  // namespace gantry::kernels
