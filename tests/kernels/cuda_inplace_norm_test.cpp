// CUDA in-place norms with dropout, run in the emulator, against the CPU kernels in fp32.
#include "gantry/kernels/inplace_norm/inplace_norm_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Case {
  std::int64_t n;
  bool centred, adds, keeps_normal;
  double dropout;
  std::int64_t rows = kRows;
};

struct Numbers {
  Doubles x, residual, weight, bias, dy, dsum, inverse;
  std::vector<std::int64_t> columns;  // not inverted
};

template <class T>
Numbers make_numbers(const Case& c) {
  Numbers result{rounded<T>(normal(c.rows * c.n, 1, 1.5, 0.3)),
                 rounded<T>(normal(c.rows * c.n, 2)),
                 rounded<float>(normal(c.n, 3, 0.1, 1.0)),
                 rounded<float>(normal(c.n, 4, 0.3)),
                 rounded<T>(normal(c.rows * c.n, 5)),
                 rounded<T>(normal(c.rows * c.n, 6)),
                 {},
                 {}};
  for (std::int64_t i = c.n / 3; i < c.n; i += 13) {
    result.columns.push_back(i);
    result.weight[static_cast<std::size_t>(i)] = 0;
  }
  for (const double w : result.weight) result.inverse.push_back(w == 0 ? 0 : 1 / w);
  return result;
}

// One forward and one backward pass in T; the backward pass from given outputs.
template <class T>
struct Attempt {
  Attempt(const Case& shape, const Numbers& numbers)
      : c(shape),
        columns(numbers.columns),
        side_count(std::ssize(columns)),
        x(numbers.x),
        residual(numbers.residual),
        dy(numbers.dy),
        dsum(numbers.dsum),
        weight(numbers.weight),
        bias(numbers.bias),
        inverse(numbers.inverse),
        y(c.rows * c.n),
        normal(c.rows * c.n),
        side(c.rows * side_count),
        sum(c.rows * c.n),
        dx(c.rows * c.n),
        dv(c.rows * c.n),
        rstd(c.rows),
        dweight(Doubles(static_cast<std::size_t>(c.n))),
        dbias(Doubles(static_cast<std::size_t>(c.n))),
        partial(cuda::kNormParts * 2 * c.n) {}

  InplaceNormForwardArgs<T> forward(bool wants_sum) {
    return {.x = x.data(),
            .residual = c.adds ? residual.data() : nullptr,
            .sum = wants_sum ? sum.data() : nullptr,
            .weight = weight.data(),
            .bias = bias.data(),
            .y = y.data(),
            .rstd = rstd.data(),
            .side_columns = columns.data(),
            .side = side.data(),
            .normal = c.keeps_normal ? normal.data() : nullptr,
            .side_count = side_count,
            .n = c.n,
            .eps = 1e-5f,
            .dropout = {.seed = 11, .threshold = dropout_threshold(c.dropout)}};
  }
  InplaceNormBackwardArgs<T> backward() {
    return {.dy = dy.data(),
            .y = c.keeps_normal ? nullptr : y.data(),
            .normal = c.keeps_normal ? normal.data() : nullptr,
            .rstd = rstd.data(),
            .weight = weight.data(),
            .bias = bias.data(),
            .inverse = c.keeps_normal ? nullptr : inverse.data(),
            .side_columns = columns.data(),
            .side = side.data(),
            .side_count = c.keeps_normal ? 0 : side_count,
            .dsum = c.adds ? dsum.data() : nullptr,
            .dresidual = c.adds ? dv.data() : nullptr,
            .dx = dx.data(),
            .dweight = dweight.data(),
            .dbias = dbias.data(),
            .n = c.n,
            .dropout = {.seed = 11, .threshold = dropout_threshold(c.dropout)}};
  }

  Case c;
  std::vector<std::int64_t> columns;
  std::int64_t side_count;
  Guarded<T> x, residual, dy, dsum;
  Guarded<float> weight, bias, inverse;
  Guarded<T> y, normal, side, sum, dx, dv;
  Guarded<float> rstd, dweight, dbias, partial;
};

void run_cpu(Attempt<float>& cpu, bool forward) {
  if (forward && cpu.c.centred) scalar::inplace_norm_forward<float, true>(cpu.forward(false), 0, cpu.c.rows);
  if (forward && !cpu.c.centred) scalar::inplace_norm_forward<float, false>(cpu.forward(false), 0, cpu.c.rows);
  if (!forward && cpu.c.centred) scalar::inplace_norm_backward<float, true>(cpu.backward(), 0, cpu.c.rows);
  if (!forward && !cpu.c.centred) scalar::inplace_norm_backward<float, false>(cpu.backward(), 0, cpu.c.rows);
}

template <class T>
void check(const Case& c) {
  const Numbers numbers = make_numbers<T>(c);
  for_orders([&] {
    Attempt<float> cpu(c, numbers);
    Attempt<T> run(c, numbers);
    run_cpu(cpu, true);
    ASSERT_EQ(cuda::inplace_norm_forward(run.forward(false), c.centred, c.rows, nullptr), cudaSuccess);
    expect_near(run.y, cpu.y.values());
    expect_near(run.side, cpu.side.values());
    expect_near(run.rstd, cpu.rstd.values(), 100.0);  // a row that is dropped whole has 316
    if (c.keeps_normal) expect_near(run.normal, cpu.normal.values());
    if (c.n == 1) return;  // its gradient is the difference of equal numbers
    // Both backward passes from the same outputs.
    for (std::int64_t i = 0; i < c.rows * c.n; ++i) {
      cpu.y.data()[i] = static_cast<float>(value_of(run.y.data()[i]));
      cpu.normal.data()[i] = static_cast<float>(value_of(run.normal.data()[i]));
    }
    for (std::int64_t i = 0; i < run.side.size(); ++i)
      cpu.side.data()[i] = static_cast<float>(value_of(run.side.data()[i]));
    for (std::int64_t i = 0; i < c.rows; ++i) cpu.rstd.data()[i] = run.rstd.data()[i];
    run_cpu(cpu, false);
    ASSERT_EQ(cuda::inplace_norm_backward(run.backward(), c.centred, c.rows, run.partial.data(), nullptr), cudaSuccess);
    expect_near(run.dx, cpu.dx.values(), 4.0);
    if (c.adds) expect_near(run.dv, cpu.dv.values(), 4.0);
    const double sums = static_cast<double>(c.rows) / kRows;
    expect_near(run.dweight, cpu.dweight.values(), 4.0 * sums);
    expect_near(run.dbias, cpu.dbias.values(), sums);
    EXPECT_TRUE(run.partial.intact());
  });
}

TEST(CudaInplaceNorm, ForwardAndBackwardMatchTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 31, 33, 100, 577}) {
      for (const bool flag : {false, true}) {
        for (const double p : {0.0, 0.3}) {
          SCOPED_TRACE(::testing::Message() << n << ", " << flag << ", p " << p);
          check<T>({n, true, flag, !flag, p});
          check<T>({n, false, flag, flag, p});
        }
      }
    }
  });
}

// More rows than blocks: shared memory is used again.
TEST(CudaInplaceNorm, BlocksTakeSeveralRows) {
  check<float>({100, true, true, false, 0.0, 1030});
  check<float>({40, false, true, true, 0.3, 1030});
}

// The sum that later layers read is rounded first, and the norm is that of the rounded one.
TEST(CudaInplaceNorm, TheStoredSumIsTheOneThatIsNormalised) {
  const Case c{100, true, true, false, 0.3};
  const Numbers numbers = make_numbers<Bf16>(c);
  Attempt<Bf16> run(c, numbers), cpu(c, numbers);
  scalar::inplace_norm_forward<Bf16, true>(cpu.forward(true), 0, cpu.c.rows);
  ASSERT_EQ(cuda::inplace_norm_forward(run.forward(true), true, c.rows, nullptr), cudaSuccess);
  EXPECT_EQ(run.sum.values(), cpu.sum.values());
  expect_near(run.y, cpu.y.values());
}

TEST(CudaInplaceNorm, EveryElementDropsAsOnTheCpuAndDroppedNanStays) {
  Case c{577, false, false, false, 0.5};
  Numbers numbers = make_numbers<float>(c);
  numbers.x[577 + 3] = std::nan("");
  Attempt<float> run(c, numbers), cpu(c, numbers);
  run_cpu(cpu, true);
  ASSERT_EQ(cuda::inplace_norm_forward(run.forward(false), false, c.rows, nullptr), cudaSuccess);
  for (std::int64_t i = 0; i < kRows * 577; ++i) {
    ASSERT_EQ(std::isnan(run.y.data()[i]), i / 577 == 1) << i;
    ASSERT_TRUE(i / 577 == 1 || std::abs(run.y.data()[i] - cpu.y.data()[i]) < 1e-5f) << i;
  }
}

TEST(CudaInplaceNorm, RowsThatSharedMemoryCannotHoldAreRefused) {
  InplaceNormForwardArgs<float> args{};
  float rstd = 0;
  args.rstd = &rstd;
  args.n = 41'000;
  EXPECT_EQ(cuda::inplace_norm_forward(args, true, 1, nullptr), cudaErrorInvalidValue);
  args.rstd = nullptr;  // the carrier in the last bits of y is not there
  args.n = 8;
  EXPECT_EQ(cuda::inplace_norm_forward(args, true, 1, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace gantry::kernels
