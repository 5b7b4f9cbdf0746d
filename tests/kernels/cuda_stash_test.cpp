// CUDA int8 packing, run in the emulator, against the CPU kernels.
#include "gantry/kernels/stash/stash_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

template <class T>
struct Packed {
  Packed(const Doubles& input)
      : x(input), restored(x.size()), scales(stash_groups(x.size())), values(input.size() + 1, 77) {}
  StashArgs<T> stash_args() { return {x.data(), values.data(), scales.data(), x.size()}; }
  UnstashArgs<T> unstash_args() { return {values.data(), scales.data(), restored.data(), x.size()}; }

  Guarded<T> x, restored;
  Guarded<Bf16> scales;
  std::vector<std::int8_t> values;
};

template <class T>
void check(const Doubles& input) {
  Packed<T> cpu(input);
  scalar::stash(cpu.stash_args(), 0, stash_groups(cpu.x.size()));
  for_orders([&] {
    Packed<T> run(input);
    ASSERT_EQ(cuda::stash(run.stash_args(), nullptr), cudaSuccess);
    ASSERT_EQ(cuda::unstash(run.unstash_args(), nullptr), cudaSuccess);
    ASSERT_TRUE(run.scales.intact() && run.restored.intact());
    EXPECT_EQ(run.values.back(), 77) << "wrote behind the values";
    expect_same(run.scales, cpu.scales, 0, 0);
    for (std::size_t i = 0; i < input.size(); ++i) {
      const double scale = run.scales.values()[i / kStashGroup];
      if (std::isnan(scale)) {
        ASSERT_TRUE(std::isnan(value_of(run.restored.data()[i]))) << i;
      } else {
        ASSERT_EQ(run.values[i], cpu.values[i]) << i;
      }
    }
    scalar::unstash(run.unstash_args(), 0, stash_groups(run.x.size()));  // over the kernel's results
    const Guarded<T> expected = run.restored;
    ASSERT_EQ(cuda::unstash(run.unstash_args(), nullptr), cudaSuccess);
    expect_same(run.restored, expected, 0, 0);
  });
}

TEST(CudaStash, PacksAndRestoresLikeTheCpuForEveryLength) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 31, 32, 33, 63, 64, 65, 128, 577}) {
      SCOPED_TRACE(n);
      Doubles x = normal(n, 5 + static_cast<std::uint64_t>(n));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0, static_cast<double>(i / 64 % 4) - 2);
      check<T>(x);
    }
  });
}

TEST(CudaStash, OddNumbersSpoilTheirOwnGroupOnly) {
  for_all_types([]<class T>() {
    for (const double odd : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (const std::size_t place : {64u, 100u, 127u, 140u}) {
        Doubles x = normal(141, 2);
        x[place] = odd;
        check<T>(x);
      }
    }
  });
}

TEST(CudaStash, ExtremesComeBackFinite) {
  for_all_types([]<class T>() {
    const double largest = std::is_same_v<T, Fp16> ? 65504.0 : std::is_same_v<T, Bf16> ? 0x1.fep127 : 0x1.fffffep127;
    Doubles x(65, 0.0);
    x[0] = largest;
    x[1] = -largest;
    x[2] = largest / 3;
    x[64] = -0.0;
    check<T>(x);
  });
}

}  // namespace
}  // namespace gantry::kernels
