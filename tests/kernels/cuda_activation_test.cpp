// CUDA activations, run in the emulator: values, derivatives from the output, flags, against double precision and the
// CPU.
#include "gantry/kernels/activation/activation_cuda.h"
#include "tests/kernels/activation_extremes.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr Activation kKinds[] = {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu,
                                 Activation::kQuickGelu};
constexpr SideFlag kSides[] = {SideFlag::kByte, SideFlag::kBit, SideFlag::kLowBit};

std::size_t flag_bytes(SideFlag side, std::size_t n) {
  return side == SideFlag::kByte ? n : side == SideFlag::kBit ? (n + 7) / 8 : 0;
}

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

// [-12, 20], densely around the minima, where the fit is most sensitive.
Doubles sweep() {
  Doubles result;
  for (int i = 0; i <= 16000; ++i) result.push_back(-12.0 + i * 2e-3 + 1e-5);
  for (const double centre : {-0.7518, -0.7525, -1.2785, -0.7512}) {
    for (int i = -2000; i <= 2000; ++i) result.push_back(centre + i * 2e-6);
  }
  return result;
}

template <class T>
void check_slopes(Activation kind, FitQuality quality, SideFlag side, double bar) {
  SCOPED_TRACE(::testing::Message() << "activation " << static_cast<int>(kind) << ", side " << static_cast<int>(side));
  const Doubles inputs = rounded<T>(sweep());
  const auto n = static_cast<std::int64_t>(inputs.size());
  Guarded<T> buffer(inputs), slopes(n);
  const Guarded<T> ones(Doubles(inputs.size(), 1.0));
  std::vector<std::uint8_t> flags(flag_bytes(side, inputs.size()) + 1, 0xa5);
  const ActivationForwardArgs<T> forward{kind, side, buffer.data(), buffer.data(), flags.data()};
  ASSERT_EQ(cuda::activation_forward(forward, n, nullptr), cudaSuccess);
  const ActivationBackwardArgs<T> backward{kind,        quality,       side,        buffer.data(),
                                           ones.data(), slopes.data(), flags.data()};
  ASSERT_EQ(cuda::activation_backward(backward, n, nullptr), cudaSuccess);
  EXPECT_TRUE(buffer.intact() && slopes.intact());
  EXPECT_EQ(flags.back(), 0xa5) << "wrote behind the flags";
  double largest = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    largest = std::max(largest, std::abs(value_of(slopes.data()[i]) - exact(kind, inputs[i]).slope));
  }
  EXPECT_LE(largest, bar);
  EXPECT_GT(largest, 0.0);
}

// Bars as for the CPU kernels.
TEST(CudaActivation, SlopesFromTheOutput) {
  for (const Activation kind : kKinds) {
    for (const SideFlag side : kSides) {
      check_slopes<float>(kind, FitQuality::kAccurate, side, 1.5e-4);
      check_slopes<Bf16>(kind, FitQuality::kAccurate, side, 2.8e-2);
      check_slopes<Fp16>(kind, FitQuality::kAccurate, side, 1.2e-2);
    }
    check_slopes<float>(kind, FitQuality::kFast, SideFlag::kBit, 2.7e-3);
  }
}

template <class T>
void check_values() {
  const Doubles inputs = rounded<T>(sweep());
  const auto n = static_cast<std::int64_t>(inputs.size());
  const Guarded<T> x(inputs), ones(Doubles(inputs.size(), 1.0));
  for (const Activation kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    Guarded<T> y(n), again(inputs), dx(n);
    ASSERT_EQ(cuda::activation_forward<T>({kind, SideFlag::kNone, x.data(), y.data(), nullptr}, n, nullptr),
              cudaSuccess);
    ASSERT_EQ(
        cuda::activation_exact_backward<T>({kind, again.data(), ones.data(), dx.data(), again.data()}, n, nullptr),
        cudaSuccess);
    EXPECT_EQ(y.values(), again.values()) << "the exact backward pass makes the output again";
    EXPECT_TRUE(y.intact() && again.intact() && dx.intact());
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto [value, slope] = exact(kind, inputs[i]);
      const double unit = std::is_same_v<T, float> ? 1.5 * 0x1p-23 : 2.02 * kRounding<T>;
      // Far left the value carries the relative error of an exponential: that of the exponent times its size.
      const double far = inputs[i] < -1 ? 2e-7 * inputs[i] * inputs[i] * std::abs(value) : 0;
      const double smallest = std::is_same_v<T, Fp16> ? 0x1p-25 : 1e-37;
      ASSERT_NEAR(value_of(y.data()[i]), value, unit * std::abs(value) + far + smallest) << inputs[i];
      ASSERT_NEAR(value_of(dx.data()[i]), slope, (2 * kRounding<T> + 5e-7) * (1 + std::abs(slope))) << inputs[i];
    }
  }
}

TEST(CudaActivation, ValuesAndExactSlopesMatchDoubles) {
  check_values<float>();
  check_values<Bf16>();
  check_values<Fp16>();
}

// A warp's ballot makes the bits of elements in other threads; the last byte is partly behind the end.
TEST(CudaActivation, FlagsAreThoseOfTheCpuForEveryLength) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      const Doubles inputs = rounded<T>(normal(n, 5, 2.0));
      for (const SideFlag side : {SideFlag::kByte, SideFlag::kBit}) {
        SCOPED_TRACE(::testing::Message() << n << ", side " << static_cast<int>(side));
        const Guarded<T> x(inputs);
        Guarded<T> y(n);
        std::vector<std::uint8_t> expected(flag_bytes(side, inputs.size())), flags(expected.size());
        scalar::activation_forward<T>({Activation::kSilu, side, x.data(), y.data(), expected.data()}, 0, n);
        for_orders([&] {
          ASSERT_EQ(
              cuda::activation_forward<T>({Activation::kSilu, side, x.data(), y.data(), flags.data()}, n, nullptr),
              cudaSuccess);
          EXPECT_EQ(flags, expected);
        });
      }
    }
  });
}

TEST(CudaActivation, GradientsInPlace) {
  const Doubles inputs = normal(300, 5, 2.0), gradients = normal(300, 6);
  Guarded<float> y(inputs), dx(300), in_place(gradients);
  const Guarded<float> dy(gradients);
  std::vector<std::uint8_t> flags(38);
  const Activation kind = Activation::kGeluErf;
  const FitQuality quality = FitQuality::kAccurate;
  cuda::activation_forward<float>({kind, SideFlag::kBit, y.data(), y.data(), flags.data()}, 300, nullptr);
  cuda::activation_backward<float>({kind, quality, SideFlag::kBit, y.data(), dy.data(), dx.data(), flags.data()}, 300,
                                   nullptr);
  cuda::activation_backward<float>(
      {kind, quality, SideFlag::kBit, y.data(), in_place.data(), in_place.data(), flags.data()}, 300, nullptr);
  EXPECT_EQ(dx.values(), in_place.values());
  cuda::activation_backward<float>({kind, quality, SideFlag::kBit, y.data(), dy.data(), y.data(), flags.data()}, 300,
                                   nullptr);
  EXPECT_EQ(dx.values(), y.values());
}

template <class T>
void check_extremes(SideFlag side) {
  SCOPED_TRACE(static_cast<int>(side));
  const Doubles inputs = extreme_inputs<T>();
  const auto n = static_cast<std::int64_t>(inputs.size());
  const Guarded<T> ones(Doubles(inputs.size(), 1.0));
  for (const Activation kind : kKinds) {
    SCOPED_TRACE(static_cast<int>(kind));
    Guarded<T> y(inputs), g(n);
    std::vector<std::uint8_t> flags(inputs.size());
    cuda::activation_forward<T>({kind, side, y.data(), y.data(), flags.data()}, n, nullptr);
    cuda::activation_backward<T>({kind, FitQuality::kAccurate, side, y.data(), ones.data(), g.data(), flags.data()}, n,
                                 nullptr);
    expect_extremes<T>(y.values(), g.values(), 1e-5);
  }
}

TEST(CudaActivation, NanInfinitiesZerosAndHugeInputs) {
  for (const SideFlag side : kSides) {
    check_extremes<float>(side);
    check_extremes<Bf16>(side);
    check_extremes<Fp16>(side);
  }
}

}  // namespace
}  // namespace gantry::kernels
