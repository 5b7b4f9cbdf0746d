// Matrix products on tensors, and the operators above them at sizes that take the own kernel.
#include "gantry/kernels/gemm/gemm.h"

#include "gantry/base/isa.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/kernels/linear/linear.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

// A matrix stored row by row, column by column, or as columns 3 onwards of a wider one.
at::Tensor laid_out(const at::Tensor& x, int layout) {
  if (layout == 0) return x;
  if (layout == 1) return x.t().contiguous().t();
  return at::cat({at::full({x.size(0), 3}, NAN, x.options()), x, at::full({x.size(0), 2}, NAN, x.options())}, 1)
      .narrow(1, 3, x.size(1));
}

class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

bool without_kernel() { return base::isa() == base::Isa::kScalar; }

TEST(Gemm, EveryStorageMatchesFp64OnOneThreadAndMore) {
  const at::Tensor a = normal({301, 517}, 1), b = normal({517, 203}, 2), bias = normal({203}, 3);
  const at::Tensor exact = at::mm(a, b);
  for (const int threads : {1, 2, 3}) {
    const Threads guard(threads);
    for (int layout = 0; layout < 9; ++layout) {
      SCOPED_TRACE(::testing::Message() << threads << " threads, layout " << layout);
      const at::Tensor left = laid_out(a.to(at::kFloat), layout / 3), right = laid_out(b.to(at::kFloat), layout % 3);
      EXPECT_EQ(gemm_applies(left, right), !without_kernel());
      EXPECT_LT(error_of(matrix_product(left, right), exact), 1e-6);
      EXPECT_LT(error_of(matrix_product(left, right, bias.to(at::kFloat)), exact + bias), 1e-6);
      const at::Tensor wide = at::full({301, 210}, NAN);
      matrix_product_out(wide.narrow(1, 2, 203), left, right);
      EXPECT_LT(error_of(wide.narrow(1, 2, 203), exact), 1e-6);
      EXPECT_TRUE(at::isnan(wide.narrow(1, 0, 2)).all().item<bool>() &&
                  at::isnan(wide.narrow(1, 205, 5)).all().item<bool>());
      tensor::GradientSlot slot{at::full({301, 203}, NAN), false};
      add_matrix_product(slot, left, right);
      add_matrix_product(slot, left, right);
      EXPECT_TRUE(slot.written);
      EXPECT_LT(error_of(slot.gradient, 2 * exact), 1e-6);
    }
  }
}

TEST(Gemm, TheNumberOfThreadsChangesNoBit) {
  if (without_kernel()) GTEST_SKIP() << "products go to at::mm without AVX2";
  const at::Tensor a = at::randn({1024, 300}), b = at::randn({200, 300}).t();
  const auto with = [&](int threads) {
    const Threads guard(threads);
    return matrix_product(a, b);
  };
  const at::Tensor one = with(1);
  for (const int threads : {2, 3, 4}) EXPECT_TRUE(at::equal(one, with(threads))) << threads;
}

TEST(Gemm, WhatTheKernelDoesNotTakeGoesToTorch) {
  if (without_kernel()) GTEST_SKIP() << "products go to at::mm without AVX2";
  const at::Tensor a = at::randn({256, 256}), b = at::randn({256, 256});
  EXPECT_TRUE(gemm_applies(a, b));
  EXPECT_FALSE(gemm_applies(a.narrow(0, 0, 63), b)) << "few rows";
  EXPECT_FALSE(gemm_applies(a, b.narrow(1, 0, 63))) << "few columns";
  EXPECT_FALSE(gemm_applies(a.narrow(0, 0, 255), b)) << "little work";
  EXPECT_FALSE(gemm_applies(a.to(at::kBFloat16), b.to(at::kBFloat16)));
  EXPECT_FALSE(gemm_applies(a.to(at::kDouble), b.to(at::kDouble)));
  EXPECT_FALSE(gemm_applies(at::randn({256, 512}).slice(1, 0, 512, 2), b)) << "no unit stride";
  EXPECT_FALSE(gemm_applies(at::randn({1, 256}).expand({256, 256}), b)) << "rows that are one";
  const at::Tensor odd = at::randn({256, 512}).slice(1, 0, 512, 2), one = at::randn({1, 1}).expand({256, 256});
  EXPECT_TRUE(at::allclose(matrix_product(odd, b), at::mm(odd, b)));
  EXPECT_TRUE(at::allclose(matrix_product(one, b), at::mm(one, b)));
  const at::Tensor strided = at::empty({256, 512}).slice(1, 0, 512, 2);
  matrix_product_out(strided, a, b);
  EXPECT_TRUE(at::allclose(strided, at::mm(a, b), 1e-4, 1e-4));
  tensor::GradientSlot slot{at::full({256, 256}, NAN, at::kDouble), false};
  add_matrix_product(slot, a, b);
  EXPECT_TRUE(at::allclose(slot.gradient, at::mm(a, b).to(at::kDouble), 1e-4, 1e-4));
  EXPECT_THROW(matrix_product(a, at::randn({255, 256})), c10::Error);
}

TEST(Gemm, LargeLinearOperatorsMatchThePlainFormula) {
  const variable_list in{normal({2, 150, 200}, 1), normal({310, 200}, 2), normal({310}, 3)};
  ASSERT_EQ(gemm_applies(in[0].view({300, 200}).to(at::kFloat), in[1].to(at::kFloat).t()), !without_kernel());
  const auto op = [](const variable_list& x) -> variable_list { return {linear(x[0], x[1], x[2])}; };
  const auto plain = [](const variable_list& x) -> variable_list { return {at::matmul(x[0], x[1].t()) + x[2]}; };
  expect_matches(op, plain, in);
  const auto op_io = [](const variable_list& x) -> variable_list {
    return {linear(x[0], x[1], x[2], WeightLayout::kInOut)};
  };
  const auto plain_io = [](const variable_list& x) -> variable_list { return {at::matmul(x[0], x[1]) + x[2]}; };
  expect_matches(op_io, plain_io, {in[0], normal({200, 310}, 4), in[2]});
}

TEST(Gemm, LargeFusedWeightsMatchThePlainFormula) {
  const auto op = [](const variable_list& x) -> variable_list { return {fused_linear(x[0], {x[1], x[2]})}; };
  const auto plain = [](const variable_list& x) -> variable_list {
    return {at::matmul(x[0], at::cat({x[1], x[2]}).t())};
  };
  expect_matches(op, plain, {normal({300, 200}, 1), normal({310, 200}, 2), normal({290, 200}, 3)});
}

TEST(Gemm, LargeHeadsMatchThePlainFormula) {
  at::Tensor labels = at::arange(300).remainder(401);
  labels[7] = -1;
  // Two chunks of 150 rows, and one.
  for (const std::int64_t chunk_bytes : {150 * 401 * 4, 0}) {
    const auto op = [&](const variable_list& x) -> variable_list {
      return {linear_cross_entropy(x[0], x[1], {}, labels, {.chunk_bytes = chunk_bytes})};
    };
    const auto plain = [&](const variable_list& x) -> variable_list {
      const at::Tensor logits = at::matmul(x[0], x[1].t());
      const auto wide = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      return {at::cross_entropy_loss(logits.to(wide), labels, {}, at::Reduction::Mean, -1)};
    };
    expect_matches(op, plain, {normal({300, 300}, 1), normal({401, 300}, 2, 0.1)}, 2.0);
  }
}

}  // namespace
}  // namespace gantry::kernels
