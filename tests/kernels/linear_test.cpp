// Linear operators against the plain formula, with and without gradient slots.
#include "gantry/kernels/linear/linear.h"

#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

// The weights as neighbours in one buffer, as a flat parameter buffer lays them out.
variable_list adjacent(const std::vector<std::int64_t>& rows, std::int64_t k, at::ScalarType type) {
  std::int64_t total = 0;
  for (const auto n : rows) total += n;
  const at::Tensor flat = normal({total, k}, 7).to(type);
  variable_list parts;
  std::int64_t first = 0;
  for (const auto n : rows) {
    parts.push_back(flat.narrow(0, first, n).detach());
    first += n;
  }
  return parts;
}

TEST(Linear, SmallRowCountsMatchTorch) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t k : {1, 31, 64, 577}) {
      for (std::int64_t rows = 1; rows <= 9; ++rows) {
        SCOPED_TRACE(::testing::Message() << type << ", " << rows << " rows of " << k);
        const at::Tensor x = normal({rows, k}, 1), w = normal({37, k}, 2), b = normal({37}, 3);
        const at::Tensor exact = at::linear(x, w, b);
        const double bound = type == at::kFloat ? 1e-6 : 0x1p-8;
        EXPECT_LT(error_of(kernels::linear(x.to(type), w.to(type), b.to(type)), exact), bound);
        EXPECT_LT(error_of(kernels::linear(x.to(type).view({rows, 1, k}), w.to(type)), (exact - b).view({rows, 1, 37})),
                  bound);
      }
    }
  }
}

TEST(Linear, SmallRowsOfSeveralWeightsStandSideBySide) {
  const at::NoGradGuard no_grad;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = normal({3, 700}, 1).to(type);
    const variable_list w{normal({300, 700}, 2).to(type), normal({1, 700}, 3).to(type), normal({77, 700}, 4).to(type)};
    const variable_list b{normal({300}, 5).to(type), normal({1}, 6).to(type), normal({77}, 7).to(type)};
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor exact = at::linear(wide(x), wide(at::cat(w)), wide(at::cat(b)));
    EXPECT_LT(error_of(fused_linear(x, w, b), exact), type == at::kFloat ? 1e-6 : 0x1p-8);
    EXPECT_LT(error_of(fused_linear(x, w), exact - wide(at::cat(b))), type == at::kFloat ? 1e-6 : 0x1p-8);
  }
}

TEST(Linear, StridedOperandsGiveTheSameResult) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = normal({40, 4}, 1).to(at::kFloat), w = normal({40, 9}, 2).to(at::kFloat);
  const at::Tensor b = normal({9, 2}, 3).to(at::kFloat);
  const at::Tensor expected = at::linear(x.t().contiguous(), w.t().contiguous(), b.select(1, 1).contiguous());
  EXPECT_LT(error_of(kernels::linear(x.t(), w.t(), b.select(1, 1)), expected.to(at::kDouble)), 1e-6);
  EXPECT_LT(error_of(kernels::linear(x.t(), w.t().contiguous(), b.select(1, 1)), expected.to(at::kDouble)), 1e-6);
}

TEST(Linear, GradientsMatchThePlainFormulaInBothLayouts) {
  for (const auto& lead : std::vector<std::vector<std::int64_t>>{{}, {5}, {2, 33}, {0}}) {
    SCOPED_TRACE(::testing::PrintToString(lead));
    auto shape = lead;
    shape.push_back(24);
    const at::Tensor x = normal(shape, 1), w = normal({40, 24}, 2), b = normal({40}, 3);
    const auto op = [](const variable_list& in) -> variable_list { return {kernels::linear(in[0], in[1], in[2])}; };
    const auto plain = [](const variable_list& in) -> variable_list { return {at::matmul(in[0], in[1].t()) + in[2]}; };
    expect_matches(op, plain, {x, w, b});
    const auto op_io = [](const variable_list& in) -> variable_list {
      return {kernels::linear(in[0], in[1], in[2], WeightLayout::kInOut)};
    };
    const auto plain_io = [](const variable_list& in) -> variable_list { return {at::matmul(in[0], in[1]) + in[2]}; };
    expect_matches(op_io, plain_io, {x, normal({24, 40}, 4), b});
  }
}

TEST(Linear, NeighboursInOneStorageAreViewedAsOne) {
  const variable_list parts = adjacent({3, 5, 2}, 8, at::kFloat);
  const at::Tensor joint = view_adjacent(parts);
  ASSERT_TRUE(joint.defined());
  EXPECT_EQ(joint.data_ptr(), parts[0].data_ptr());
  EXPECT_TRUE(at::equal(joint, at::cat(parts)));
  EXPECT_FALSE(view_adjacent({parts[0], parts[2]}).defined()) << "a gap";
  EXPECT_FALSE(view_adjacent({parts[1], parts[0]}).defined()) << "wrong order";
  EXPECT_FALSE(view_adjacent({parts[0], parts[1].clone()}).defined()) << "another storage";
  EXPECT_FALSE(view_adjacent({parts[0], parts[1].view({10, 4})}).defined()) << "another width";
  EXPECT_FALSE(view_adjacent({parts[0].t(), parts[1]}).defined()) << "transposed";
  EXPECT_FALSE(view_adjacent({parts[0].view({24}), parts[1].view({40})}).defined()) << "vectors";
  EXPECT_FALSE(view_adjacent({}).defined());
}

// Leaves made by run() are copies of their own; `place` puts them side by side again inside the graph's leaves.
TEST(Linear, FusedGradientsMatchForNeighboursAndStrangers) {
  for (const bool neighbours : {false, true}) {
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "neighbours " << neighbours << ", biased " << biased);
      const at::Tensor x = normal({2, 19, 24}, 1).to(at::kFloat).requires_grad_();
      variable_list weights = adjacent({8, 4, 12}, 24, at::kFloat), biases;
      for (auto& w : weights) w = (neighbours ? w : w.clone()).requires_grad_();
      for (const auto n : {8, 4, 12}) biases.push_back(normal({n}, 10 + n).to(at::kFloat).requires_grad_());
      if (!biased) biases.clear();
      EXPECT_EQ(view_adjacent(weights).defined(), neighbours);
      variable_list leaves{x}, exact_leaves;
      leaves.insert(leaves.end(), weights.begin(), weights.end());
      leaves.insert(leaves.end(), biases.begin(), biases.end());
      for (const auto& leaf : leaves) exact_leaves.push_back(leaf.detach().to(at::kDouble).requires_grad_());
      at::Tensor exact = at::matmul(exact_leaves[0], at::cat(at::TensorList(exact_leaves).slice(1, 3)).t());
      if (biased) exact = exact + at::cat(at::TensorList(exact_leaves).slice(4, 3));
      const at::Tensor head = normal({2, 19, 24}, 50), y = fused_linear(x, weights, biases);
      EXPECT_LT(error_of(y, exact), 1e-6);
      const variable_list actual = torch::autograd::grad({y}, leaves, {head.to(at::kFloat)});
      const variable_list expected = torch::autograd::grad({exact}, exact_leaves, {head});
      for (std::size_t i = 0; i < leaves.size(); ++i) EXPECT_LT(error_of(actual[i], expected[i]), 1e-6) << i;
    }
  }
}

TEST(Linear, OnlyWhatNeedsAGradientGetsOne) {
  const at::Tensor x = at::randn({12, 8});
  const at::Tensor trained = at::randn({4, 8}).requires_grad_(), frozen = at::randn({6, 8});
  const at::Tensor bias = at::randn({6}).requires_grad_(), still = at::randn({4});
  fused_linear(x, {trained, frozen}, {still, bias}).sum().backward();
  EXPECT_TRUE(trained.grad().defined() && bias.grad().defined());
  EXPECT_FALSE(frozen.grad().defined() || still.grad().defined() || x.grad().defined());
}

// Two micro-batches into slots must equal the gradient of both, whether the slots are neighbours or not.
void check_slots(at::ScalarType type, at::ScalarType slot_type, bool neighbours, double bound) {
  const at::Tensor x = normal({2, 30, 24}, 1).to(type);
  variable_list parameters = adjacent({8, 4, 12}, 24, type);
  for (const auto n : {8, 4, 12}) parameters.push_back(normal({n}, 10 + n).to(type));
  for (auto& p : parameters) p = p.clone().requires_grad_();
  const at::Tensor flat = at::full({24, 24}, NAN, x.options().dtype(slot_type));
  tensor::GradientSinks sinks;
  variable_list places;
  const std::vector<std::int64_t> starts{0, 8, 12};
  for (std::size_t i = 0; i < 6; ++i) {
    const at::Tensor& p = parameters[i];
    const bool apart = i > 2 || !neighbours;
    places.push_back(apart ? at::full_like(p.detach(), NAN, flat.options()) : flat.narrow(0, starts[i], p.size(0)));
    sinks.add(p, places.back());
  }
  variable_list exact;
  for (const auto& p : parameters) exact.push_back(p.detach().to(at::kDouble).requires_grad_());
  const auto halves = [](const variable_list& p, std::size_t from) {
    return variable_list(p.begin() + from, p.begin() + from + 3);
  };
  (at::linear(x.to(at::kDouble), at::cat(halves(exact, 0)), at::cat(halves(exact, 3))) * normal({24}, 60))
      .sum()
      .backward();
  const tensor::GradientSinks::Guard guard(sinks);
  for (int step = 0; step < 2; ++step) {  // the second step starts from the first one's sums and must forget them
    sinks.begin_step();
    for (int i = 0; i < 2; ++i) {
      (fused_linear(x[i], halves(parameters, 0), halves(parameters, 3)) * normal({24}, 60).to(type)).sum().backward();
    }
    sinks.finish_step();
  }
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_FALSE(parameters[i].grad().defined()) << i;
    EXPECT_LT(error_of(places[i], exact[i].grad()), bound) << i;
  }
}

TEST(Linear, SlotsGatherMicroBatches) {
  for (const bool neighbours : {false, true}) {
    SCOPED_TRACE(neighbours);
    check_slots(at::kFloat, at::kFloat, neighbours, 1e-6);
    check_slots(at::kBFloat16, at::kBFloat16, neighbours, 0x1p-7);
    check_slots(at::kBFloat16, at::kFloat, neighbours, 0x1p-8);
  }
}

TEST(Linear, SlotsWorkForConv1dLayoutAndUntouchedSlotsBecomeZero) {
  const at::Tensor x = normal({9, 24}, 1).to(at::kFloat), other = at::ones({5, 5}).requires_grad_();
  const at::Tensor w = normal({24, 16}, 2).to(at::kFloat).requires_grad_();
  Sinks sinks({w, other});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  kernels::linear(x, w, {}, WeightLayout::kInOut).sum().backward();
  sinks.registry().finish_step();
  EXPECT_LT(error_of(sinks[0], at::matmul(x.t(), at::ones({9, 16})).to(at::kDouble)), 1e-6);
  EXPECT_TRUE(at::equal(sinks[1], at::zeros({5, 5})));
}

TEST(Linear, Fp32SlotsOfBf16BiasesKeepFp32Sums) {
  const at::Tensor x = at::ones({1, 1}, at::kBFloat16), w = at::ones({1, 1}, at::kBFloat16);
  const at::Tensor bias = at::zeros({1}, at::kBFloat16).requires_grad_();
  Sinks sinks({bias});
  const tensor::GradientSinks::Guard guard(sinks.registry());
  kernels::linear(at::ones({1001, 1}, at::kBFloat16), w, bias).sum().backward();
  EXPECT_EQ(sinks[0].item<float>(), 1001.0f);  // bf16 would hold 1000
}

TEST(Linear, SecondDerivativesMatchTorchOrAreRefused) {
  const auto penalty = [](const at::Tensor& y, const variable_list& in) {
    at::Tensor sum;
    for (const auto& g : torch::autograd::grad({y.tanh().sum()}, in, {}, true, true)) {
      sum = sum.defined() ? sum + g.square().sum() : g.square().sum();
    }
    return torch::autograd::grad({sum}, in);
  };
  for (const std::int64_t n : {20, 264}) {  // the second takes the own matrix product
    for (const bool in_out : {false, true}) {
      variable_list in{normal({2, n / 2, n}, 1), normal({n, n}, 2, 0.05), normal({n}, 3)};
      for (auto& tensor : in) tensor = tensor.to(at::kFloat).requires_grad_();
      const auto layout = in_out ? WeightLayout::kInOut : WeightLayout::kOutIn;
      const auto actual = penalty(kernels::linear(in[0], in[1], in[2], layout), in);
      const auto expected = penalty(at::matmul(in[0], in_out ? in[1] : in[1].t()) + in[2], in);
      for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(error_of(actual[i], expected[i].to(at::kDouble)), 1e-5) << i;
    }
  }
  variable_list in{normal({7, 9}, 1), normal({4, 9}, 2), normal({5, 9}, 3), normal({4}, 4), normal({5}, 5)};
  for (auto& tensor : in) tensor.requires_grad_();
  const auto actual = penalty(fused_linear(in[0], {in[1], in[2]}, {in[3], in[4]}), in);
  const auto expected = penalty(at::linear(in[0], at::cat({in[1], in[2]}), at::cat({in[3], in[4]})), in);
  for (std::size_t i = 0; i < in.size(); ++i) EXPECT_LT(error_of(actual[i], expected[i]), 1e-12) << i;

  const at::Tensor strided = normal({9, 3, 7}, 1).requires_grad_();
  std::string message;
  try {
    penalty(kernels::linear(strided.permute({2, 1, 0}), in[1]), {strided, in[1]});
  } catch (const std::exception& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("linear: second derivatives are not available"), std::string::npos) << message;
}

TEST(Linear, FrozenWeightsLetTheInputGo) {
  for (const bool frozen : {false, true}) {
    const at::Tensor leaf = normal({6, 9}, 1).to(at::kFloat).requires_grad_();
    const at::Tensor w = normal({4, 9}, 2).to(at::kFloat).requires_grad_(!frozen);
    const tensor::LiveBytes live;
    const at::Tensor y = kernels::linear(leaf * 2, w);
    EXPECT_EQ(live.now(), static_cast<std::int64_t>(y.nbytes()) + (frozen ? 0 : 6 * 9 * 4));
    EXPECT_LT(error_of(torch::autograd::grad({y.sum()}, {leaf})[0], 2 * w.sum(0).expand({6, 9}).to(at::kDouble)), 1e-6);
  }
}

TEST(Linear, MessagesNameWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 16}), w = at::zeros({4, 16}), b = at::zeros({4});
  EXPECT_MESSAGE(kernels::linear(x, at::zeros({4, 8})), "linear: input of 16 features does not fit weight [4, 8]");
  EXPECT_MESSAGE(kernels::linear(x, at::zeros({4, 16}, at::kBFloat16)), "linear: input is Float, weight is BFloat16");
  EXPECT_MESSAGE(kernels::linear(x, w, at::zeros({5})), "linear: bias Float [5] does not fit weight Float [4, 16]");
  EXPECT_MESSAGE(kernels::linear(x, w, b.to(at::kBFloat16)), "linear: bias BFloat16 [4] does not fit");
  EXPECT_MESSAGE(fused_linear(x, {}), "fused_linear: no weights given");
  EXPECT_MESSAGE(fused_linear_int8_input(x, {}), "fused_linear_int8_input: no weights given");
  EXPECT_MESSAGE(fused_linear(x, {w, w}, {b}), "linear: 1 biases for 2 weights");
  EXPECT_MESSAGE(kernels::linear(at::zeros({}), w), "at least one axis");
}

}  // namespace
}  // namespace gantry::kernels
