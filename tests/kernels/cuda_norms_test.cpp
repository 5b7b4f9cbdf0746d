// CUDA layer and RMS norm, run in the emulator, against the CPU kernels in fp32.
#include "gantry/kernels/layer_norm/layer_norm_cuda.h"
#include "gantry/kernels/rms_norm/rms_norm_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

// All tensors of one norm in T, with the results of either device.
template <class T>
struct Attempt {
  explicit Attempt(std::int64_t width)
      : n(width),
        x(rounded<T>(testing::normal(kRows * n, 1, 1.5, 2.0))),
        residual(rounded<T>(testing::normal(kRows * n, 2))),
        dy(rounded<T>(testing::normal(kRows * n, 3))),
        dsum(rounded<T>(testing::normal(kRows * n, 4))),
        weight(rounded<T>(testing::normal(n, 5, 0.2, 1.0))),
        bias(rounded<T>(testing::normal(n, 6, 0.3))),
        sum(kRows * n),
        y(kRows * n),
        dx(kRows * n),
        mean(kRows),
        rstd(kRows),
        dweight(Doubles(static_cast<std::size_t>(n))),
        dbias(Doubles(static_cast<std::size_t>(n))),
        partial(cuda::kNormParts * 2 * n) {}

  LayerNormForwardArgs<T> layer_forward(bool adds) {
    return {x.data(),    adds ? residual.data() : nullptr,
            sum.data(),  weight.data(),
            bias.data(), y.data(),
            mean.data(), rstd.data(),
            n,           1e-5f};
  }
  LayerNormBackwardArgs<T> layer_backward(bool adds) {
    return {dy.data(),     x.data(),
            mean.data(),   rstd.data(),
            weight.data(), adds ? dsum.data() : nullptr,
            dx.data(),     dweight.data(),
            dbias.data(),  n};
  }
  RmsNormForwardArgs<T> rms_forward(bool adds) {
    return {x.data(), adds ? residual.data() : nullptr, sum.data(), weight.data(), y.data(), rstd.data(), n, 1e-5f};
  }
  RmsNormBackwardArgs<T> rms_backward(bool adds) {
    return {dy.data(),      x.data(), rstd.data(), weight.data(), adds ? dsum.data() : nullptr, dx.data(),
            dweight.data(), n};
  }

  std::int64_t n;
  Guarded<T> x, residual, dy, dsum, weight, bias, sum, y, dx;
  Guarded<float> mean, rstd, dweight, dbias, partial;
};

// The numbers of a problem in T, as fp32.
template <class T>
Attempt<float> in_fp32(Attempt<T>& run) {
  Attempt<float> result(run.n);
  const auto copy = [](Guarded<float>& to, const Guarded<T>& from) {
    for (std::int64_t i = 0; i < to.size(); ++i) to.data()[i] = static_cast<float>(value_of(from.data()[i]));
  };
  copy(result.x, run.x);
  copy(result.residual, run.residual);
  copy(result.dy, run.dy);
  copy(result.dsum, run.dsum);
  copy(result.weight, run.weight);
  copy(result.bias, run.bias);
  return result;
}

// With a residual, the norm is that of the rounded sum.
template <class T>
void round_sum(Attempt<float>& cpu) {
  for (std::int64_t i = 0; i < kRows * cpu.n; ++i) {
    cpu.x.data()[i] = static_cast<float>(value_of(stored<T>(cpu.x.data()[i] + cpu.residual.data()[i])));
  }
}

template <class T>
void check_layer_norm(std::int64_t n, bool adds) {
  for_orders([&] {
    Attempt<T> run(n);
    Attempt<float> cpu = in_fp32(run), input = cpu;
    ASSERT_EQ(cuda::layer_norm_forward(run.layer_forward(adds), kRows, nullptr), cudaSuccess);
    if (adds) {
      round_sum<T>(input);
      expect_near(run.sum, input.x.values());
    }
    scalar::layer_norm_forward(input.layer_forward(false), 0, kRows);
    expect_near(run.y, input.y.values(), 4.0);
    expect_near(run.mean, input.mean.values());
    expect_near(run.rstd, input.rstd.values(), n == 1 ? 1000.0 : 10.0);
    scalar::layer_norm_forward(cpu.layer_forward(false), 0, kRows);  // the statistics that backward reads
    for (std::int64_t i = 0; i < kRows; ++i) {
      run.mean.data()[i] = cpu.mean.data()[i];
      run.rstd.data()[i] = cpu.rstd.data()[i];
    }
    scalar::layer_norm_backward(cpu.layer_backward(adds), 0, kRows);
    ASSERT_EQ(cuda::layer_norm_backward(run.layer_backward(adds), kRows, run.partial.data(), nullptr), cudaSuccess);
    expect_near(run.dx, cpu.dx.values(), n == 1 ? 1000.0 : 4.0);
    expect_near(run.dweight, cpu.dweight.values(), 4.0);
    expect_near(run.dbias, cpu.dbias.values(), 4.0);
    EXPECT_TRUE(run.partial.intact());
  });
}

template <class T>
void check_rms_norm(std::int64_t n, bool adds) {
  for_orders([&] {
    Attempt<T> run(n);
    Attempt<float> cpu = in_fp32(run), input = cpu;
    ASSERT_EQ(cuda::rms_norm_forward(run.rms_forward(adds), kRows, nullptr), cudaSuccess);
    if (adds) {
      round_sum<T>(input);
      expect_near(run.sum, input.x.values());
    }
    scalar::rms_norm_forward(input.rms_forward(false), 0, kRows);
    expect_near(run.y, input.y.values(), 4.0);
    expect_near(run.rstd, input.rstd.values(), 4.0);
    scalar::rms_norm_forward(cpu.rms_forward(false), 0, kRows);
    for (std::int64_t i = 0; i < kRows; ++i) run.rstd.data()[i] = cpu.rstd.data()[i];
    scalar::rms_norm_backward(cpu.rms_backward(adds), 0, kRows);
    ASSERT_EQ(cuda::rms_norm_backward(run.rms_backward(adds), kRows, run.partial.data(), nullptr), cudaSuccess);
    expect_near(run.dx, cpu.dx.values(), 4.0);
    expect_near(run.dweight, cpu.dweight.values(), 4.0);
    EXPECT_TRUE(run.partial.intact());
  });
}

TEST(CudaNorms, LayerNormMatchesTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 31, 256, 257, 577}) {
      for (const bool adds : {false, true}) {
        SCOPED_TRACE(::testing::Message() << n << (adds ? " with a residual" : ""));
        check_layer_norm<T>(n, adds);
      }
    }
  });
}

TEST(CudaNorms, RmsNormMatchesTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 31, 256, 257, 577}) {
      for (const bool adds : {false, true}) {
        SCOPED_TRACE(::testing::Message() << n << (adds ? " with a residual" : ""));
        check_rms_norm<T>(n, adds);
      }
    }
  });
}

TEST(CudaNorms, StatisticsMayBeLeftOut) {
  Attempt<float> run(40), other(40);
  auto layer = run.layer_forward(true);
  layer.mean = layer.rstd = nullptr;
  ASSERT_EQ(cuda::layer_norm_forward(layer, kRows, nullptr), cudaSuccess);
  ASSERT_EQ(cuda::layer_norm_forward(other.layer_forward(true), kRows, nullptr), cudaSuccess);
  EXPECT_EQ(run.y.values(), other.y.values());
  auto rms = run.rms_forward(true);
  rms.rstd = nullptr;
  ASSERT_EQ(cuda::rms_norm_forward(rms, kRows, nullptr), cudaSuccess);
  ASSERT_EQ(cuda::rms_norm_forward(other.rms_forward(true), kRows, nullptr), cudaSuccess);
  EXPECT_EQ(run.y.values(), other.y.values());
}

}  // namespace
}  // namespace gantry::kernels
