// SwiGLU, embedding and rotary positions.
#include "gantry/kernels/embedding/embedding.h"
#include "gantry/kernels/rope/rope.h"
#include "gantry/kernels/swiglu/swiglu.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

TEST(Swiglu, ValuesAndGradientsMatchTheReferenceInFp64) {
  const auto op = [](const variable_list& in) -> variable_list { return {swiglu(in[0])}; };
  const auto plain = [](const variable_list& in) -> variable_list { return {swiglu_reference(in[0])}; };
  const auto strided = [](const Op& f) { return [f](const variable_list& in) { return f({in[0].transpose(0, -1)}); }; };
  for (const auto& shape :
       std::vector<std::vector<std::int64_t>>{{2}, {5, 34}, {2, 3, 200}, {400, 64}, {0, 8}, {2, 0}}) {
    SCOPED_TRACE(::testing::PrintToString(shape));
    expect_matches(op, plain, {normal(shape, 1, 3.0)});
  }
  expect_matches(strided(op), strided(plain), {normal({30, 4, 7}, 2, 3.0)});
}

TEST(Swiglu, ExtremesNanAndMessages) {
  const at::Tensor x = at::tensor({-1e4f, 1e4f, NAN, 0.0f, 2.0f, 2.0f, 2.0f, 2.0f});
  const at::Tensor y = swiglu(x);
  EXPECT_EQ(y[0].item<float>(), 0.0f);
  EXPECT_EQ(y[1].item<float>(), 2e4f);
  EXPECT_TRUE(std::isnan(y[2].item<float>()));
  EXPECT_EQ(y[3].item<float>(), 0.0f);
  EXPECT_MESSAGE(swiglu(at::zeros({2, 5})), "swiglu: the last axis of [2, 5] is not even");
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(swiglu(at::zeros({2, 4}).requires_grad_()).requires_grad());
}

TEST(Embedding, RowsAndGradientsMatchWithRepeatedIds) {
  const at::Tensor ids = at::tensor({3, 0, 3, 9, 3, 1}, at::kLong).view({2, 3});
  const auto op = [&](const variable_list& in) -> variable_list { return {kernels::embedding(ids, in[0])}; };
  const auto plain = [&](const variable_list& in) -> variable_list { return {in[0].index({ids})}; };
  expect_matches(op, plain, {normal({10, 17}, 1)});
  EXPECT_EQ(kernels::embedding(at::zeros({0}, at::kLong), at::zeros({4, 3})).numel(), 0);
}

TEST(Embedding, SlotsGatherRowByRow) {
  const at::Tensor ids = at::tensor({3, 0, 3, 9}, at::kLong);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor weight = normal({10, 17}, 1).to(type).requires_grad_(), head = normal({4, 17}, 2);
    Sinks sinks({weight});
    const tensor::GradientSinks::Guard guard(sinks.registry());
    for (int i = 0; i < 2; ++i) (kernels::embedding(ids, weight) * head.to(type)).sum().backward();
    const at::Tensor expected = at::zeros({10, 17}, at::kDouble).index_add_(0, ids, head * 2.0);
    EXPECT_LT(error_of(sinks[0], expected), 1e-6);
    EXPECT_FALSE(weight.grad().defined());
  }
}

// A tied table: the head's gradient is there first, and the embedding's joins it.
TEST(Embedding, AddsToAGradientThatAnotherOperatorWrote) {
  const at::Tensor weight = normal({6, 8}, 1).to(at::kFloat).requires_grad_();
  Sinks sinks({weight});
  tensor::accumulate(*sinks.registry().find(weight), at::ones({6, 8}));
  const tensor::GradientSinks::Guard guard(sinks.registry());
  kernels::embedding(at::tensor({2}, at::kLong), weight).sum().backward();
  at::Tensor expected = at::ones({6, 8});
  expected[2].add_(1);
  EXPECT_TRUE(at::equal(sinks[0], expected));
}

TEST(Embedding, MessagesNameTheIds) {
  const at::Tensor weight = at::zeros({10, 4});
  EXPECT_MESSAGE(kernels::embedding(at::tensor({0, 10}, at::kLong), weight),
                 "token ids 0 to 10 do not all fit a table of 10 rows");
  EXPECT_MESSAGE(kernels::embedding(at::tensor({-1, 3}, at::kLong), weight), "token ids -1 to 3");
  EXPECT_MESSAGE(kernels::embedding(at::zeros({2}, at::kInt), weight), "ids must be int64, got Int");
  EXPECT_MESSAGE(kernels::embedding(at::zeros({2}, at::kLong), at::zeros({4})), "expected a [vocab, n] table, got [4]");
}

at::Tensor angles() { return normal({12, 20}, 3, 2.0); }

TEST(Rope, RotatesAViewInPlaceAndBack) {
  const at::Tensor positions = at::tensor({0, 11, 4, 4, 7}, at::kLong), x = normal({5, 7, 40}, 1);
  const at::Tensor c = angles().cos().to(at::kFloat), s = angles().sin().to(at::kFloat);
  const auto halves = x.narrow(1, 0, 4).chunk(2, -1);
  const at::Tensor cw = c.to(at::kDouble).index({positions}).unsqueeze(1),
                   sw = s.to(at::kDouble).index({positions}).unsqueeze(1);
  const at::Tensor exact = at::cat({halves[0] * cw - halves[1] * sw, halves[1] * cw + halves[0] * sw}, -1);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const at::Tensor turned = x.to(type, false, true);
    const double bound = type == at::kBFloat16 ? 0x1p-8 : 1e-6;
    rope_(turned.narrow(1, 0, 4), positions, c, s);
    EXPECT_LT(error_of(turned.narrow(1, 0, 4), exact), bound);
    EXPECT_TRUE(at::equal(turned.narrow(1, 4, 3), x.narrow(1, 4, 3).to(type))) << "other heads stay";
    rope_(turned.narrow(1, 0, 4), positions, c, s, true);
    EXPECT_LT(error_of(turned, x), 2 * bound);
  }
}

TEST(Rope, MessagesNameWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 3, 40}), at_zero = at::zeros({2}, at::kLong);
  const at::Tensor c = angles().cos().to(at::kFloat);
  EXPECT_MESSAGE(rope_(at::zeros({2, 3, 38}), at_zero, c, c),
                 "rope: input [2, 3, 38] does not fit tables of 20 frequencies");
  EXPECT_MESSAGE(rope_(x, at::zeros({3}, at::kLong), c, c), "rope: expected 2 int64 positions, got [3]");
  EXPECT_MESSAGE(rope_(x, at_zero + 12, c, c), "rope: position 12 is outside the 12 positions of the table");
  EXPECT_MESSAGE(rope_(x, at_zero - 1, c, c), "outside the 12 positions");
  EXPECT_MESSAGE(rope_(x, at_zero, c, c.to(at::kDouble)), "two contiguous Float tables of one shape");
  EXPECT_MESSAGE(rope_(x, at_zero, c, c.narrow(0, 0, 3)), "tables of one shape");
}

}  // namespace
}  // namespace gantry::kernels
