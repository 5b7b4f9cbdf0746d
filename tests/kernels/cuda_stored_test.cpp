// CUDA attention that keeps its probabilities, run in the emulator, against the CPU kernels in fp32.
#include "gantry/kernels/attention/stored_cuda.h"
#include "tests/kernels/attention_attempt.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Mask = Case::Mask;

// What the CPU makes of the same numbers in fp32, its backward pass from what the CUDA kernel has stored.
template <class T>
void check_backward(StoredAttempt<T>& run, const Stored<T>& s, StoredAttempt<float>& cpu,
                    const Stored<float>& cpu_stored) {
  ASSERT_EQ(cuda::stored_backward(run.backward(s), nullptr), cudaSuccess);
  for (std::int64_t i = 0; i < run.p.size(); ++i) cpu.p.data()[i] = static_cast<float>(value_of(run.p.data()[i]));
  for (std::int64_t i = 0; i < run.out.size(); ++i) cpu.out.data()[i] = static_cast<float>(value_of(run.out.data()[i]));
  scalar::stored_backward(cpu.backward(cpu_stored), 0, kBatch * kKvHeads);
  expect_near(run.dq, cpu.dq.values(), 2.0);
  expect_near(run.dk, cpu.dk.values(), 2.0);
  expect_near(run.dv, cpu.dv.values(), 2.0);
  expect_near(run.dscores, cpu.dscores.values(), 2.0);
}

template <class T>
void check(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Results expected = reference(p);
  const Stored<T> s(p);
  const Stored<float> cpu_stored(p);
  for_orders([&] {
    StoredAttempt<float> cpu(p, cpu_stored);
    scalar::stored_forward(cpu.forward(cpu_stored), 0, kBatch * kHeads);
    StoredAttempt<T> run(p, s);
    ASSERT_EQ(cuda::stored_forward(run.forward(s), nullptr), cudaSuccess);
    EXPECT_TRUE(run.p.intact());
    for (std::int64_t i = 0; i < run.p.size(); ++i) {
      const double got = value_of(run.p.data()[i]), want = value_of(cpu.p.data()[i]);
      ASSERT_NEAR(std::abs(got), std::abs(want), tolerance<T>(want, 0.1) + (std::is_same_v<T, Fp16> ? 0x1p-25 : 0));
      // Both kernels are free to mark keys that no query sees as dropped.
      ASSERT_TRUE(want == 0 || std::signbit(got) == std::signbit(want)) << "probability " << i << ": " << got;
    }
    // Each probability was rounded before it met its value.
    const double rounding = kRounding<T> * static_cast<double>(keep_scale(p.rule().threshold));
    Guarded<T> want(expected.out);
    expect_same(run.out, want, 4 * kRounding<T> + 1e-5, 4 * rounding + 1e-5);
    check_backward(run, s, cpu, cpu_stored);
  });
}

TEST(CudaStored, LengthsAroundTheTilesMatchTheCpu) {
  for (const std::int64_t t : {1, 2, 15, 16, 17, 33, 63, 64, 65, 129}) {
    SCOPED_TRACE(t);
    for (const bool causal : {false, true}) {
      check<float>({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal, .dropout = 0.25});
    }
  }
}

TEST(CudaStored, HeadSizesMatchTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t dim : {48, 128, 256}) {
      SCOPED_TRACE(dim);
      check<T>({.q_length = 35, .k_length = 35, .head_dim = dim, .causal = true, .dropout = 0.1});
    }
  });
}

TEST(CudaStored, MasksPaddingAndGroupsMatchTheCpuInAllTypes) {
  for_all_types([]<class T>() {
    for (const Mask mask : {Mask::kNone, Mask::kVisible, Mask::kAdded, Mask::kShared}) {
      SCOPED_TRACE(::testing::Message() << "mask " << static_cast<int>(mask));
      check<T>({.q_length = 50,
                .k_length = 135,
                .head_dim = 16,
                .causal = true,
                .documents = true,
                .padding = true,
                .mask = mask,
                .dropout = mask == Mask::kVisible ? 0.0 : 0.1});
    }
  });
}

TEST(CudaStored, MoreQueriesThanKeysLeaveTheFirstOnesBlind) {
  for_all_types(
      []<class T>() { check<T>({.q_length = 120, .k_length = 9, .head_dim = 32, .causal = true, .dropout = 0.1}); });
}

TEST(CudaStored, EverythingDroppedIsZeroAndSoAreItsGradients) {
  const Problem p = make_problem<float>({.q_length = 9, .k_length = 9, .head_dim = 16, .causal = true, .dropout = 1});
  const Stored<float> s(p);
  StoredAttempt<float> run(p, s);
  ASSERT_EQ(cuda::stored_forward(run.forward(s), nullptr), cudaSuccess);
  ASSERT_EQ(cuda::stored_backward(run.backward(s), nullptr), cudaSuccess);
  for (const auto* x : {&run.out, &run.dq, &run.dk, &run.dv}) {
    for (const double value : x->values()) ASSERT_EQ(value, 0.0);
  }
}

TEST(CudaStored, NanInAQueryReachesItsOutputAndItsGradientAndNothingElse) {
  Problem p = make_problem<float>({.q_length = 6, .k_length = 6, .head_dim = 16, .causal = true, .dropout = 0.5});
  p.q[p.q_at(0, 2, 1)] = std::nan("");
  const Stored<float> s(p);
  StoredAttempt<float> run(p, s);
  ASSERT_EQ(cuda::stored_forward(run.forward(s), nullptr), cudaSuccess);
  ASSERT_EQ(cuda::stored_backward(run.backward(s), nullptr), cudaSuccess);
  EXPECT_TRUE(std::isnan(run.out.data()[p.q_at(0, 2, 1)]));
  EXPECT_TRUE(std::isnan(run.dq.data()[p.q_at(0, 2, 1)]));
  EXPECT_TRUE(std::isnan(run.dv.data()[p.k_at(0, 0, 0)]));
  EXPECT_FALSE(std::isnan(run.out.data()[p.q_at(0, 3, 1)]));
  EXPECT_FALSE(std::isnan(run.dq.data()[p.q_at(0, 3, 1)]));
}

}  // namespace
}  // namespace gantry::kernels
