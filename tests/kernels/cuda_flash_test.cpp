// CUDA flash attention, run in the emulator, against double-precision loops over the exported mask.
#include "gantry/kernels/attention/flash_cuda.h"
#include "tests/kernels/attention_attempt.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Mask = Case::Mask;

// The backward kernel's scratch is one float a row; the forward one takes none.
template <class T>
struct Attempt : FlashAttempt<T> {
  Attempt(const Problem& p, const Stored<T>& s) : FlashAttempt<T>(p, s, kBatch * kHeads * p.shape.q_length) {}

  void forward(const Stored<T>& s) {
    FlashForwardArgs<T> args = FlashAttempt<T>::forward(s);
    args.scratch = nullptr;
    ASSERT_EQ(cuda::flash_forward(args, nullptr), cudaSuccess);
  }
  void backward(const Stored<T>& s, const Guarded<T>& done) {
    ASSERT_EQ(cuda::flash_backward(FlashAttempt<T>::backward(s, done), nullptr), cudaSuccess);
  }
};

template <class T>
void check(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Results expected = reference(p);
  const Stored<T> s(p);
  for_orders([&] {
    Attempt<T> run(p, s);
    run.forward(s);
    expect_near(run.out, expected.out);
    for (std::size_t row = 0; row < expected.lse.size(); ++row) {
      const double got = value_of(run.lse.data()[row]), want = expected.lse[row];
      ASSERT_TRUE(got == want || std::abs(got - want) < 1e-4) << "row " << row << ": " << got << ", expected " << want;
    }
    const Guarded<T> done(expected.out);  // not the kernel's own, whose last bits may differ
    run.backward(s, done);
    const double scale = static_cast<double>(std::max<std::int64_t>(shape.head_dim, 64)) / 64;  // sums of more products
    expect_near(run.dq, expected.dq, scale);
    expect_near(run.dk, expected.dk, scale);
    expect_near(run.dv, expected.dv, scale);
    expect_near(run.dscores, expected.dscores, scale);
    EXPECT_TRUE(run.lse.intact() && run.scratch.intact());
  });
}

TEST(CudaFlash, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 129}) {
    SCOPED_TRACE(t);
    for (const bool causal : {false, true}) {
      check<float>({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal, .dropout = 0.25});
    }
  }
}

TEST(CudaFlash, HeadSizesMatchDoublesInAllTypes) {
  for_all_types([]<class T>() {
    for (const std::int64_t dim : {1, 7, 48, 64, 80, 128, 144, 256}) {
      SCOPED_TRACE(dim);
      check<T>({.q_length = 35, .k_length = 35, .head_dim = dim, .causal = true});
    }
  });
}

TEST(CudaFlash, DocumentsAndPaddingHideKeysAndBlindRowsAreZero) {
  for_all_types([]<class T>() {
    check<T>({.q_length = 97, .k_length = 97, .head_dim = 32, .causal = true, .documents = true});
    check<T>({.q_length = 97, .k_length = 97, .head_dim = 32, .causal = false, .padding = true});
    check<T>({.q_length = 97, .k_length = 97, .head_dim = 80, .causal = true, .documents = true, .padding = true});
  });
}

TEST(CudaFlash, DifferentNumbersOfQueriesAndKeys) {
  for_all_types([]<class T>() {
    check<T>({.q_length = 5, .k_length = 130, .head_dim = 32, .causal = true, .dropout = 0.1});
    check<T>({.q_length = 97, .k_length = 13, .head_dim = 32, .causal = false, .dropout = 0.1});
    check<T>({.q_length = 97, .k_length = 67, .head_dim = 80, .causal = true, .dropout = 0.1});
  });
}

TEST(CudaFlash, MasksMatchDoubles) {
  for_all_types([]<class T>() {
    for (const Mask mask : {Mask::kVisible, Mask::kAdded, Mask::kShared}) {
      for (const double p : {0.0, 0.5}) {
        SCOPED_TRACE(::testing::Message() << "mask " << static_cast<int>(mask) << ", p " << p);
        check<T>({.q_length = 50,
                  .k_length = 70,
                  .head_dim = 48,
                  .causal = true,
                  .padding = true,
                  .mask = mask,
                  .dropout = p});
      }
    }
  });
}

TEST(CudaFlash, EverythingDroppedIsZeroAndSoAreItsGradients) {
  const Problem p = make_problem<float>({.q_length = 9, .k_length = 9, .head_dim = 16, .causal = true, .dropout = 1});
  const Stored<float> s(p);
  Attempt<float> run(p, s);
  run.forward(s);
  run.backward(s, run.out);
  for (const auto* x : {&run.out, &run.dq, &run.dk, &run.dv}) {
    for (const double value : x->values()) ASSERT_EQ(value, 0.0);
  }
}

// The mask that the kernel used, read off its output: values that are the unit vectors of their keys.
TEST(CudaFlash, TheMaskIsTheOneOfTheCpu) {
  const std::int64_t keys = 64, queries = 50;
  Problem p =
      make_problem<float>({.q_length = queries, .k_length = keys, .head_dim = keys, .causal = false, .dropout = 0.3});
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t j = 0; j < keys; ++j) {
      for (std::int64_t d = 0; d < kKvHeads * keys; ++d) {
        p.v[p.k_at(b, j, 0) + static_cast<std::size_t>(d)] = d % keys == j ? 1 : 0;
      }
    }
  }
  const Stored<float> s(p);
  Attempt<float> run(p, s);
  run.forward(s);
  for (std::int64_t row = 0; row < kBatch * kHeads * queries; ++row) {
    const std::int64_t t = row % queries, h = row / queries % kHeads, b = row / queries / kHeads;
    for (std::int64_t j = 0; j < keys; ++j) {
      const float passed = run.out.data()[p.q_at(b, t, h) + static_cast<std::size_t>(j)];
      ASSERT_EQ(passed != 0, p.keep[p.score_at(b, h, t, j)] != 0) << "row " << row << ", key " << j;
    }
  }
}

TEST(CudaFlash, NanInAValueReachesEveryQueryThatSeesItEvenWhereItIsDropped) {
  Problem p = make_problem<float>({.q_length = 20, .k_length = 20, .head_dim = 16, .causal = false, .dropout = 0.5});
  p.v[p.k_at(0, 4, 0)] = std::nan("");
  const Stored<float> s(p);
  Attempt<float> run(p, s);
  run.forward(s);
  for (std::int64_t t = 0; t < 20; ++t) {
    ASSERT_TRUE(std::isnan(run.out.data()[p.q_at(0, t, 0)])) << t;
    ASSERT_FALSE(std::isnan(run.out.data()[p.q_at(0, t, 0) + 1])) << t;
    ASSERT_FALSE(std::isnan(run.out.data()[p.q_at(1, t, 0)])) << t;
  }
}

TEST(CudaFlash, NanInAQueryReachesItsOutputAndItsGradient) {
  Problem p = make_problem<float>({.q_length = 6, .k_length = 6, .head_dim = 16, .causal = true});
  p.q[p.q_at(0, 2, 1)] = std::nan("");
  const Stored<float> s(p);
  Attempt<float> run(p, s);
  run.forward(s);
  run.backward(s, run.out);
  EXPECT_TRUE(std::isnan(run.out.data()[p.q_at(0, 2, 1)]));
  EXPECT_TRUE(std::isnan(run.lse.data()[1 * 6 + 2]));
  EXPECT_TRUE(std::isnan(run.dq.data()[p.q_at(0, 2, 1)]));
  EXPECT_TRUE(std::isnan(run.dv.data()[p.k_at(0, 0, 0)]));
  EXPECT_FALSE(std::isnan(run.out.data()[p.q_at(0, 3, 1)])) << "other queries are not touched";
  EXPECT_FALSE(std::isnan(run.dq.data()[p.q_at(0, 3, 1)]));
}

TEST(CudaFlash, WhatIsNotThereIsRefused) {
  const Problem p = make_problem<float>({.q_length = 3, .k_length = 3, .head_dim = 257, .causal = true});
  const Stored<float> s(p);
  Attempt<float> run(p, s);
  FlashForwardArgs<float> args{run.shape,         s.q_view(s.q),  s.k_view(s.k), s.k_view(s.v),
                               s.q_view(run.out), run.lse.data(), nullptr};
  EXPECT_EQ(cuda::flash_forward(args, nullptr), cudaErrorInvalidValue);
  args.shape.head_dim = 256;
  args.shape.kv_heads = 4;
  EXPECT_EQ(cuda::flash_forward(args, nullptr), cudaErrorInvalidValue);
  args.shape.kv_heads = 2;
  args.lse = nullptr;
  EXPECT_EQ(cuda::flash_forward(args, nullptr), cudaErrorInvalidValue);
  args.shape.batch = 0;
  args.lse = run.lse.data();
  EXPECT_EQ(cuda::flash_forward(args, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace gantry::kernels
