// The CUDA loss kernel, run in the emulator, against the CPU kernel in fp32.
#include "gantry/kernels/cross_entropy/cross_entropy_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Terms {
  float scale, smoothing, z;
};

template <class T>
struct Attempt {
  Attempt(const Doubles& input, std::int64_t rows) : logits(input), losses(rows) {}

  CrossEntropyArgs<T> args(const std::vector<std::int64_t>& labels, const Terms& terms) {
    CrossEntropyArgs<T> result{logits.data(), labels.data(), losses.data(), logits.size() / losses.size(), terms.scale};
    result.label_smoothing = terms.smoothing;
    result.z_loss = terms.z;
    return result;
  }

  Guarded<T> logits;
  Guarded<float> losses;
};

template <class T>
void check(const Doubles& input, const std::vector<std::int64_t>& labels, const Terms& terms) {
  const auto rows = static_cast<std::int64_t>(labels.size());
  Attempt<float> cpu(rounded<T>(input), rows);
  scalar::cross_entropy(cpu.args(labels, terms), 0, rows);
  for_orders([&] {
    Attempt<T> run(input, rows);
    ASSERT_EQ(cuda::cross_entropy(run.args(labels, terms), rows, nullptr), cudaSuccess);
    expect_same(run.losses, cpu.losses, 1e-5, 1e-5);
    expect_same(run.logits, Guarded<T>(cpu.logits.values()), 4 * kRounding<T> + 1e-5, 1e-6);
  });
}

TEST(CudaCrossEntropy, LossesAndGradientsMatchTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t vocab : {1, 31, 32, 33, 512, 513, 1700}) {
      const Doubles input = normal(5 * vocab, 12, 5.0, -40.0);
      const std::vector<std::int64_t> labels{0, vocab - 1, -100, vocab / 2, -1};
      for (const Terms& terms :
           {Terms{0.25f, 0, 0}, Terms{1, 0.1f, 0}, Terms{1, 1, 0}, Terms{2, 0, 1e-3f}, Terms{1, 0.2f, 1e-3f}}) {
        SCOPED_TRACE(::testing::Message() << vocab << ", smoothing " << terms.smoothing << ", z " << terms.z);
        check<T>(input, labels, terms);
      }
    }
  });
}

// More rows than blocks: shared memory is used again.
TEST(CudaCrossEntropy, BlocksTakeSeveralRows) {
  std::vector<std::int64_t> labels(1030);
  for (std::size_t row = 0; row < labels.size(); ++row) labels[row] = static_cast<std::int64_t>(row % 17) - 1;
  check<float>(normal(1030 * 17, 4, 3.0), labels, {1, 0.1f, 0});
}

TEST(CudaCrossEntropy, ScaleZeroLeavesTheLogitsAlone) {
  const Doubles input = rounded<float>(normal(3 * 70, 2));
  const std::vector<std::int64_t> labels{0, -1, 69};
  Attempt<float> run(input, 3);
  ASSERT_EQ(cuda::cross_entropy(run.args(labels, {0, 0.1f, 1e-3f}), 3, nullptr), cudaSuccess);
  EXPECT_EQ(run.logits.values(), input);
  EXPECT_EQ(run.losses.values()[1], 0.0);
}

TEST(CudaCrossEntropy, HiddenEntriesHugeLogitsAndHiddenLabels) {
  Doubles input(3 * 37, -INFINITY);
  input[4] = 3e38;
  input[5] = input[36] = -3e38;
  input[37] = input[38] = 1.0;  // row 1: its label is hidden; row 2 has nothing
  check<float>(input, {4, 2, 0}, {1, 0, 0});
}

TEST(CudaCrossEntropy, NanAndInfinityReachLossAndGradient) {
  for (const double odd : {std::nan(""), HUGE_VAL}) {
    for (const std::size_t place : {0, 31, 600}) {
      SCOPED_TRACE(place);
      Doubles input = normal(700, 3);
      input[place] = odd;
      Attempt<float> run(input, 1);
      const std::vector<std::int64_t> labels{2};
      ASSERT_EQ(cuda::cross_entropy(run.args(labels, {1, 0, 0}), 1, nullptr), cudaSuccess);
      EXPECT_TRUE(std::isnan(run.losses.values()[0]));
      for (const double gradient : run.logits.values()) ASSERT_TRUE(std::isnan(gradient));
    }
  }
}

}  // namespace
}  // namespace gantry::kernels
