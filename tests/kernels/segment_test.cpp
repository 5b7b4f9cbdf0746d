// Segments that run again: gradients, what is kept, slots, and the traps of autograd.
#include "gantry/kernels/segment/segment.h"

#include <ATen/autocast_mode.h>

#include <set>
#include <thread>

#include "gantry/kernels/dropout/dropout.h"
#include "gantry/kernels/embedding/embedding.h"
#include "gantry/kernels/linear/linear.h"
#include "gantry/kernels/mlp/mlp.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Body = std::function<at::Tensor(const at::Tensor&)>;

/// linear, GELU, linear; w1 is read twice.
at::Tensor block(const at::Tensor& x, const at::Tensor& w1, const at::Tensor& b1, const at::Tensor& w2) {
  return kernels::linear(at::gelu(kernels::linear(x, w1, b1)), w2) + at::matmul(x, w1.t()).sum(-1, true);
}

/// x, w1, b1, w2.
variable_list segment_inputs(std::int64_t rows) {
  return {normal({2, rows, 24}, 1), normal({37, 24}, 2, 0.3), normal({37}, 3), normal({19, 37}, 4, 0.3)};
}

Op plain_segment() {
  return [](const variable_list& in) -> variable_list { return {block(in[0], in[1], in[2], in[3])}; };
}

Op rerun(KeepInput keep = KeepInput::kTensor) {
  return [keep](const variable_list& in) -> variable_list {
    const auto body = [=](const at::Tensor& x) { return block(x, in[1], in[2], in[3]); };
    return {rerun_segment(body, in[0], {in[1], in[2], {}, in[3], in[1]}, keep)};
  };
}

TEST(Segment, GradientsAreThoseOfTheBodyBitForBit) {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const std::int64_t rows : {0, 1, 20}) {
      SCOPED_TRACE(::testing::Message() << type << ", " << rows);
      const variable_list weights = output_weights(plain_segment(), segment_inputs(rows));
      const Traced expected = run(plain_segment(), segment_inputs(rows), type, weights);
      const Traced actual = run(rerun(), segment_inputs(rows), type, weights);
      for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(actual.gradients[i], expected.gradients[i])) << i;
      EXPECT_LE(error_of(actual.outputs[0], expected.outputs[0].to(at::kDouble)),
                type == at::kBFloat16 ? 0x1p-7 : 1e-6);
    }
  }
}

TEST(Segment, AnySubsetMayBeFrozen) {
  for (unsigned mask = 0; mask < 16; ++mask) {
    SCOPED_TRACE(mask);
    variable_list in, wanted;
    for (const auto& tensor : segment_inputs(5)) {
      in.push_back(tensor.clone().requires_grad_((mask >> in.size()) & 1));
      if (in.back().requires_grad()) wanted.push_back(in.back());
    }
    const at::Tensor y = rerun()(in)[0];
    EXPECT_EQ(y.requires_grad(), mask != 0);
    if (mask == 0) continue;
    const auto actual = torch::autograd::grad({y.sum()}, wanted);
    const auto expected = torch::autograd::grad({plain_segment()(in)[0].sum()}, wanted);
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(at::equal(actual[i], expected[i])) << i;
  }
}

TEST(Segment, GradientsOfSomeInputsOnlyAndOfNonLeaves) {
  const variable_list in = leaves_of(segment_inputs(5), at::kDouble);
  const auto doubled = [&](const Op& op) { return op({in[0] * 2, in[1] * 3, in[2], in[3]})[0].sum(); };
  for (std::size_t i = 0; i < 4; ++i) {
    const at::Tensor actual = torch::autograd::grad({doubled(rerun())}, {in[i]})[0];
    EXPECT_TRUE(at::equal(actual, torch::autograd::grad({doubled(plain_segment())}, {in[i]})[0])) << i;
  }
  doubled(rerun()).backward();
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(at::equal(in[i].grad(), torch::autograd::grad({doubled(plain_segment())}, {in[i]})[0])) << i;
  }
}

TEST(Segment, StridedInputs) {
  variable_list in = leaves_of(segment_inputs(5), at::kFloat);
  const at::Tensor base = normal({24, 5, 2}, 9).to(at::kFloat).requires_grad_();
  in[0] = base.permute({2, 1, 0});
  const at::Tensor expected = torch::autograd::grad({plain_segment()(in)[0].sum()}, {base})[0];
  EXPECT_TRUE(at::equal(torch::autograd::grad({rerun()(in)[0].sum()}, {base})[0], expected));
  EXPECT_LT(
      error_of(torch::autograd::grad({rerun(KeepInput::kInt8)(in)[0].sum()}, {base})[0], expected.to(at::kDouble)),
      0.01);
}

TEST(Segment, KeepsTheInputOnly) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const std::int64_t rows : {0, 3, 20}) {
      const variable_list in = leaves_of(segment_inputs(rows), type);
      EXPECT_EQ(kept_beside([&] { return rerun()(in)[0]; }), 0);
      EXPECT_EQ(kept_beside([&] { return rerun(KeepInput::kInt8)(in)[0]; }), stashed_bytes(2 * rows * 24));
      variable_list strided = in;
      strided[0] = in[0].transpose(0, 1);
      EXPECT_EQ(kept_beside([&] { return rerun()(strided)[0]; }), 0);
      const at::NoGradGuard no_grad;
      EXPECT_EQ(kept_beside([&] { return rerun(KeepInput::kInt8)(in)[0]; }), 0);
    }
  }
}

TEST(Segment, AnInt8InputLeavesTheValueAndCostsGradientsLessThanOnePercent) {
  const variable_list weights = output_weights(plain_segment(), segment_inputs(200));
  const Traced exact = run(plain_segment(), segment_inputs(200), at::kFloat, weights);
  const Traced packed = run(rerun(KeepInput::kInt8), segment_inputs(200), at::kFloat, weights);
  EXPECT_TRUE(at::equal(packed.outputs[0], exact.outputs[0]));
  for (std::size_t i = 0; i < 4; ++i) {
    const double error = error_of(packed.gradients[i], exact.gradients[i].to(at::kDouble));
    EXPECT_LT(error, 0.01) << i;
    EXPECT_GT(error, 1e-5) << i;
  }
}

TEST(Segment, BodiesRunOnceWithoutGradientsAndTwiceWithThem) {
  const at::Tensor x = normal({3, 4}, 1), w = normal({4, 4}, 2);
  int runs = 0, with_graph = 0;
  const Body body = [&](const at::Tensor& in) {
    ++runs;
    with_graph += at::GradMode::is_enabled() ? 1 : 0;
    return at::matmul(in, w);
  };
  EXPECT_FALSE(rerun_segment(body, x, {w}).requires_grad());  // nobody wants a gradient: as it is
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(with_graph, 1);
  w.requires_grad_();
  {
    const at::NoGradGuard no_grad;
    EXPECT_FALSE(rerun_segment(body, x, {w}).requires_grad());
  }
  EXPECT_EQ(runs, 2);
  const at::Tensor y = rerun_segment(body, x, {w});
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(with_graph, 1);
  y.sum().backward();
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(with_graph, 2);
}

TEST(Segment, SlotsGatherMicroBatches) {
  for (const KeepInput keep : {KeepInput::kTensor, KeepInput::kInt8}) {
    const variable_list in = leaves_of(
        {normal({40, 24}, 1), normal({37, 24}, 2, 0.3), normal({37}, 3), normal({24, 37}, 4, 0.3), normal({24}, 5)},
        at::kFloat);
    const variable_list parameters(in.begin() + 1, in.end());
    const auto segment = [&](const at::Tensor& x, bool again) {
      const auto body = [&](const at::Tensor& z) {
        return mlp(z, {in[1], in[2], in[3], in[4]}, Activation::kSilu, MlpMemory::kInput);
      };
      return again ? rerun_segment(body, x, parameters, keep) : body(x);
    };
    auto expected = torch::autograd::grad({segment(in[0], false).sum()}, in);
    Sinks sinks(parameters);
    const tensor::GradientSinks::Guard guard(sinks.registry());
    for (int i = 0; i < 2; ++i) segment(in[0], true).sum().backward();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_LT(error_of(sinks[i], 2.0 * expected[i + 1].to(at::kDouble)), keep == KeepInput::kInt8 ? 0.01 : 1e-5) << i;
      EXPECT_FALSE(parameters[i].grad().defined()) << i;
    }
    EXPECT_LT(error_of(in[0].grad(), 2.0 * expected[0].to(at::kDouble)), keep == KeepInput::kInt8 ? 0.02 : 1e-5);
  }
}

// Beyond a depth of sixty, autograd goes on in other threads.
TEST(Segment, DeepNestingWorksAndItsThreadsSeeTheSlots) {
  const at::Tensor x = normal({6, 8}, 1).requires_grad_(), w = (at::eye(8, at::kDouble) * 1.01).requires_grad_();
  std::set<std::thread::id> threads;
  const std::function<at::Tensor(const at::Tensor&, int)> nested = [&](const at::Tensor& in, int depth) {
    const auto body = [&, depth](const at::Tensor& z) {
      threads.insert(std::this_thread::get_id());
      const at::Tensor y = at::tanh(kernels::linear(z, w));
      return depth == 0 ? y : nested(y, depth - 1);
    };
    return rerun_segment(body, in, {w});
  };
  at::Tensor direct = x;
  for (int i = 0; i < 71; ++i) direct = at::tanh(kernels::linear(direct, w));
  const auto expected = torch::autograd::grad({direct.sum()}, {x, w});
  Sinks sinks({w}, at::kDouble);
  const tensor::GradientSinks::Guard guard(sinks.registry());
  nested(x, 70).sum().backward();
  EXPECT_GT(threads.size(), 1u);
  EXPECT_LT(error_of(sinks[0], expected[1]), 1e-12);
  EXPECT_LT(error_of(x.grad(), expected[0]), 1e-12);
  EXPECT_FALSE(w.grad().defined());
}

TEST(Segment, RetainedGraphsGiveTheSameGradientsAgain) {
  for (const KeepInput keep : {KeepInput::kTensor, KeepInput::kInt8}) {
    const variable_list in = leaves_of(segment_inputs(5), at::kFloat);
    const at::Tensor y = rerun(keep)(in)[0].sum();
    const auto gradients = [&](bool retain) { return torch::autograd::grad({y}, in, {}, retain); };
    const auto first = gradients(true), second = gradients(true), third = gradients(false);
    for (std::size_t i = 0; i < in.size(); ++i) {
      EXPECT_TRUE(at::equal(first[i], second[i]) && at::equal(first[i], third[i])) << i;
    }
    EXPECT_NE(error_text([&] { gradients(false); }).find("a second time"), std::string::npos);
  }
}

TEST(Segment, SecondDerivativesAreRefusedInWords) {
  const variable_list in = leaves_of(segment_inputs(5), at::kFloat);
  const at::Tensor head = normal({2, 5, 19}, 9).to(at::kFloat).requires_grad_();
  const auto gradients = torch::autograd::grad(rerun()(in), in, {head}, true, true);
  const auto refused = [](const std::function<void()>& function) {
    return error_text(function).find("rerun_segment: second derivatives are not available") != std::string::npos;
  };
  for (const at::Tensor& gradient : gradients) {
    EXPECT_TRUE(refused([&] { gradient.sum().backward(); }));
    for (const at::Tensor& input : {in[0], in[1], in[2], in[3], head}) {
      EXPECT_TRUE(refused([&] { torch::autograd::grad({gradient.sum() + input.sum()}, {input}); }));
    }
  }
}

TEST(Segment, ChangedParametersAndInputsAreRefused) {
  for (const std::size_t changed : {0u, 3u}) {
    const variable_list in = leaves_of(segment_inputs(5), at::kFloat);
    const at::Tensor y = rerun()(in)[0];
    {
      const at::NoGradGuard no_grad;
      in[changed].mul_(0.5);
    }
    EXPECT_NE(error_text([&] { y.sum().backward(); }).find("modified by an inplace operation"), std::string::npos);
  }
}

TEST(Segment, ForgottenParametersAreAnErrorAndNotAMissingGradient) {
  const variable_list in = leaves_of(segment_inputs(5), at::kFloat);
  const Body body = [&](const at::Tensor& x) { return block(x, in[1], in[2], in[3]); };
  const at::Tensor y = rerun_segment(body, in[0], {in[1], in[3]});
  EXPECT_NE(error_text([&] { y.sum().backward(); }).find("reads a leaf of shape [37] that wants a gradient"),
            std::string::npos);
}

TEST(Segment, GradientHooksFireOnce) {
  const variable_list in = leaves_of(segment_inputs(5), at::kDouble);
  const at::Tensor product = in[3] * 1.5;
  const variable_list used{in[0], in[1], in[2], product};
  const auto expected = torch::autograd::grad({plain_segment()(used)[0].sum()}, {in[0], in[1], in[2], product});
  product.retain_grad();
  int fired = 0;
  for (const at::Tensor& tensor : used) {
    tensor.register_hook([&fired](const at::Tensor& gradient) {
      ++fired;
      return gradient * 2;
    });
  }
  rerun()(used)[0].sum().backward();
  EXPECT_EQ(fired, 4);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(in[i].grad(), 2 * expected[i])) << i;
  EXPECT_TRUE(at::equal(product.grad(), 2 * expected[3]));
  EXPECT_TRUE(at::equal(in[3].grad(), 3 * expected[3]));
}

TEST(Segment, DropoutByACapturedRuleIsTheSameInBothRuns) {
  const at::Tensor x = normal({50, 24}, 1).requires_grad_(), w = normal({24, 24}, 2).requires_grad_();
  const DropoutRule rule = draw_dropout(0.3);
  const Body body = [=](const at::Tensor& z) { return dropout(kernels::linear(z, w), rule) * z; };
  const auto expected = torch::autograd::grad({body(x).sum()}, {x, w});
  const auto actual = torch::autograd::grad({rerun_segment(body, x, {w}).sum()}, {x, w});
  EXPECT_TRUE(at::equal(actual[0], expected[0]) && at::equal(actual[1], expected[1]));
}

TEST(Segment, AutocastOfTheFirstRunHoldsInTheSecond) {
  const at::Tensor x = normal({50, 24}, 1).to(at::kFloat).requires_grad_();
  const at::Tensor w = normal({24, 24}, 2).to(at::kFloat).requires_grad_();
  std::vector<at::ScalarType> seen;
  const Body body = [&](const at::Tensor& z) {
    const at::Tensor y = at::matmul(z, w);
    seen.push_back(y.scalar_type());
    return y;
  };
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::increment_nesting();
  const at::Tensor y = rerun_segment(body, x, {w});
  // Outside the segment the same weight still finds its gradient.
  const at::Tensor outside = torch::autograd::grad({at::matmul(x, w).sum()}, {w})[0];
  at::autocast::decrement_nesting();
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  const at::Tensor inside = torch::autograd::grad({y.sum()}, {w})[0];
  EXPECT_EQ(seen, std::vector<at::ScalarType>(2, at::kBFloat16));
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_TRUE(at::equal(inside, outside));
  // The second run left no cast weights behind that a later step would find.
  const at::NoGradGuard no_grad;
  w.mul_(2);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor later = at::matmul(x, w);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(at::equal(later, 2 * y));
}

TEST(Segment, IntegerInputsIdentityAndConstants) {
  const at::Tensor table = normal({10, 4}, 1).to(at::kFloat).requires_grad_();
  const at::Tensor ids = at::arange(6, at::kLong);
  const Body lookup = [&](const at::Tensor& z) { return kernels::embedding(z, table); };
  const auto expected = torch::autograd::grad({lookup(ids).sum()}, {table})[0];
  EXPECT_TRUE(at::equal(torch::autograd::grad({rerun_segment(lookup, ids, {table}).sum()}, {table})[0], expected));
  EXPECT_MESSAGE(rerun_segment(lookup, ids, {table}, KeepInput::kInt8),
                 "int8 keeps floating-point inputs only, got Long");

  const at::Tensor x = normal({3}, 2).requires_grad_();
  const at::Tensor same = rerun_segment([](const at::Tensor& z) { return z; }, x, {});
  EXPECT_TRUE(at::equal(torch::autograd::grad({(same * 3).sum()}, {x})[0], at::full({3}, 3, at::kDouble)));
  const at::Tensor constant = rerun_segment([](const at::Tensor& z) { return at::ones_like(z); }, x, {});
  EXPECT_FALSE(torch::autograd::grad({constant.sum()}, {x}, {}, {}, false, true)[0].defined());
}

TEST(Segment, WhatFollowsMayWorkInPlace) {
  const variable_list in = leaves_of(segment_inputs(5), at::kDouble);
  const Body body = [&](const at::Tensor& z) { return block(z, in[1], in[2], in[3]).view({-1}); };
  const auto gradient = [&](at::Tensor y) { return torch::autograd::grad({y.mul_(2).sum()}, {in[0]})[0]; };
  EXPECT_TRUE(at::equal(gradient(rerun_segment(body, in[0], {in[1], in[2], in[3]})), gradient(body(in[0]))));
}

TEST(Segment, Messages) {
  const at::Tensor x = normal({3}, 2).requires_grad_() * 1;
  EXPECT_MESSAGE(rerun_segment([](const at::Tensor& z) { return z.add_(1); }, x, {}), "the body writes into its input");
  EXPECT_MESSAGE(rerun_segment([](const at::Tensor&) { return at::Tensor(); }, x, {}), "returned an undefined tensor");
}

}  // namespace
}  // namespace gantry::kernels
