// CUDA AdamW, run in the emulator, against the CPU kernels.
#include "gantry/kernels/adamw/adamw_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr AdamwStep kStep{1e-2f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.271f, 0.0297f, 0.5f};
constexpr std::int64_t kCount = 300;

struct States {
  Guarded<float> weight{normal(kCount, 1)}, gradient{normal(kCount, 2)}, first{normal(kCount, 3, 0.1)},
      second{Doubles(kCount, 0.01)};
  AdamwArgs args() { return {weight.data(), gradient.data(), first.data(), second.data()}; }
};

TEST(CudaAdamw, AStepIsThatOfTheCpu) {
  States run, cpu;
  ASSERT_EQ(cuda::adamw(run.args(), kStep, kCount, nullptr), cudaSuccess);
  scalar::adamw(cpu.args(), kStep, 0, kCount);
  expect_same(run.weight, cpu.weight, 1e-6, 1e-7);
  expect_same(run.first, cpu.first, 1e-6, 1e-7);
  expect_same(run.second, cpu.second, 1e-6, 1e-7);
}

TEST(CudaAdamw, MastersInHalvesTakeTheSameStep) {
  for_all_types([]<class T>() {
    States whole, halves;
    const Guarded<T> gradient(normal(kCount, 2));
    Guarded<Bf16> weight(kCount);
    std::vector<std::int16_t> remainder(kCount);
    for (std::int64_t i = 0; i < kCount; ++i)
      whole.gradient.data()[i] = static_cast<float>(value_of(gradient.data()[i]));
    scalar::adamw(whole.args(), kStep, 0, kCount);
    ASSERT_EQ(cuda::split_master(halves.weight.data(), weight.data(), remainder.data(), kCount, nullptr), cudaSuccess);
    const AdamwSplitArgs<T> args{weight.data(), remainder.data(), gradient.data(), halves.first.data(),
                                 halves.second.data()};
    ASSERT_EQ(cuda::adamw_split(args, kStep, kCount, nullptr), cudaSuccess);
    ASSERT_EQ(cuda::join_master(weight.data(), remainder.data(), halves.weight.data(), kCount, nullptr), cudaSuccess);
    EXPECT_TRUE(weight.intact());
    expect_same(halves.weight, whole.weight, 1e-6, 1e-7);
    expect_same(halves.first, whole.first, 1e-6, 1e-7);
  });
}

TEST(CudaAdamw, HalvesAreThoseOfTheCpuAndJoinExactly) {
  Doubles values = normal(kCount, 7);
  values[0] = std::nan("");
  values[1] = INFINITY;
  values[2] = -0.0;
  values[3] = 0x1.fffffep127;
  values[4] = -1e-44;
  values[5] = 0x1.018p0;  // the low half is exactly a half
  Guarded<float> master(values), joined(kCount);
  Guarded<Bf16> weight(kCount), expected(kCount);
  std::vector<std::int16_t> remainder(kCount), expected_remainder(kCount);
  ASSERT_EQ(cuda::split_master(master.data(), weight.data(), remainder.data(), kCount, nullptr), cudaSuccess);
  scalar::split_master(master.data(), expected.data(), expected_remainder.data(), 0, kCount);
  EXPECT_EQ(remainder, expected_remainder);
  for (std::int64_t i = 0; i < kCount; ++i) ASSERT_EQ(weight.data()[i].bits, expected.data()[i].bits) << i;
  ASSERT_EQ(cuda::join_master(weight.data(), remainder.data(), joined.data(), kCount, nullptr), cudaSuccess);
  expect_same(joined, master, 0, 0);
}

}  // namespace
}  // namespace gantry::kernels
