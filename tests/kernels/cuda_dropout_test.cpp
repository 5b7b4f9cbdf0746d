// CUDA dropout, run in the emulator: the elements that the CPU drops.
#include "gantry/kernels/cpu/philox_raw.h"
#include "gantry/kernels/dropout/dropout_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

TEST(CudaDropout, DropsWhatTheCpuDropsAndReadsItsBits) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 7, 8, 9, 255, 2048, 2049, 5000}) {
      for (const double p : {0.0, 0.1, 0.5, 1.0}) {
        SCOPED_TRACE(::testing::Message() << n << ", p " << p);
        const DropoutRule rule{3, 1, dropout_threshold(p)};
        const Doubles input = rounded<T>(normal(n, 4));
        const auto bytes = static_cast<std::size_t>((n + 7) / 8);
        std::vector<std::uint8_t> keep(bytes);
        scalar::dropout_keep_bits(rule, 0, n, keep.data());
        Doubles expected(input.size());
        for (std::size_t i = 0; i < input.size(); ++i) {
          const bool kept = (keep[i / 8] >> (i % 8) & 1) != 0;
          expected[i] = kept ? input[i] * static_cast<double>(keep_scale(rule.threshold)) : 0.0;
        }
        Guarded<T> x(input), drawn(n);
        std::vector<std::uint8_t> bits(bytes + 1, 0xa5);
        ASSERT_EQ(cuda::dropout_apply<T>({x.data(), drawn.data(), bits.data(), false, n, rule}, nullptr), cudaSuccess);
        expect_near(drawn, expected);
        EXPECT_EQ(bits.back(), 0xa5) << "wrote behind the bits";
        bits.pop_back();
        EXPECT_EQ(bits, keep);
        const DropoutRule other{99, 1, rule.threshold};  // given bits need no draw
        ASSERT_EQ(cuda::dropout_apply<T>({x.data(), x.data(), bits.data(), true, n, other}, nullptr), cudaSuccess);
        EXPECT_EQ(x.values(), drawn.values());
      }
    }
  });
}

TEST(CudaDropout, ADroppedNanOrInfinityIsNan) {
  Guarded<float> x(Doubles{std::nan(""), INFINITY, 1.0});
  ASSERT_EQ(cuda::dropout_apply<float>({x.data(), x.data(), nullptr, false, 3, {1, 1, kDropAll}}, nullptr),
            cudaSuccess);
  EXPECT_TRUE(std::isnan(x.values()[0]) && std::isnan(x.values()[1]) && x.values()[2] == 0.0);
}

}  // namespace
}  // namespace gantry::kernels
