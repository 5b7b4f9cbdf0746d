// Memory modes of the fused feed-forward blocks: exactness, bytes, slots and the traps of autograd.
#include "gantry/kernels/activation/activation.h"
#include "gantry/kernels/mlp/mlp.h"
#include "gantry/kernels/stash/stash.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr MlpMemory kModes[] = {MlpMemory::kActivationInput, MlpMemory::kInput, MlpMemory::kInt8};

struct Sizes {
  std::int64_t rows, in, inner, out;
};
constexpr Sizes kSmall{18, 24, 37, 19}, kFewRows{3, 24, 37, 19}, kEmpty{0, 24, 37, 19}, kMedium{128, 96, 120, 80},
    kOwnGemm{260, 256, 264, 256};

/// One block as a function of x and its parameters; the last three of six or the last two of four are biases.
struct Block {
  bool gated, biased;
  WeightLayout layout = WeightLayout::kOutIn;
  Activation kind = Activation::kSilu;

  variable_list inputs(const Sizes& s) const {
    const auto weight = [&](std::int64_t out, std::int64_t in, std::uint64_t seed) {
      const double deviation = 1.0 / std::sqrt(static_cast<double>(in));
      return layout == WeightLayout::kOutIn ? normal({out, in}, seed, deviation) : normal({in, out}, seed, deviation);
    };
    variable_list result{normal({2, s.rows / 2, s.in}, 1), weight(s.inner, s.in, 2)};
    if (gated) result.push_back(weight(s.inner, s.in, 3));
    result.push_back(weight(s.out, s.inner, 4));
    if (!biased) return result;
    result.push_back(normal({s.inner}, 5, 0.1));
    if (gated) result.push_back(normal({s.inner}, 6, 0.1));
    result.push_back(normal({s.out}, 7, 0.1));
    return result;
  }

  Op op(MlpMemory memory) const {
    return [*this, memory](const variable_list& in) -> variable_list {
      const auto bias = [&](std::size_t i) { return biased ? in[i] : at::Tensor(); };
      if (gated) return {gated_mlp(in[0], {in[1], in[2], in[3], bias(4), bias(5), bias(6)}, kind, memory)};
      return {mlp(in[0], {in[1], bias(3), in[2], bias(4), layout}, kind, memory)};
    };
  }
};

const std::vector<Block> kBlocks{{false, true},
                                 {false, false},
                                 {false, true, WeightLayout::kInOut, Activation::kGeluErf},
                                 {true, true},
                                 {true, false, WeightLayout::kOutIn, Activation::kGeluTanh}};

TEST(MlpMemory, RunningTheFirstLayerAgainGivesTheSameBits) {
  for (const Block& block : kBlocks) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      for (const Sizes& sizes : {kSmall, kFewRows, kEmpty, kOwnGemm}) {
        if (sizes.rows == kOwnGemm.rows && type != at::kFloat) continue;
        SCOPED_TRACE(::testing::Message() << block.gated << ' ' << type << ' ' << sizes.rows);
        const variable_list in = block.inputs(sizes);
        const variable_list weights{normal({2, sizes.rows / 2, sizes.out}, 9)};
        const Traced expected = run(block.op(MlpMemory::kActivationInput), in, type, weights);
        const Traced actual = run(block.op(MlpMemory::kInput), in, type, weights);
        EXPECT_TRUE(at::equal(actual.outputs[0], expected.outputs[0]));
        for (std::size_t i = 0; i < in.size(); ++i) {
          EXPECT_TRUE(at::equal(actual.gradients[i], expected.gradients[i])) << i;
        }
      }
    }
  }
}

TEST(MlpMemory, Int8LeavesTheValueAndCostsGradientsAboutOnePercent) {
  for (const Block& block : kBlocks) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      SCOPED_TRACE(::testing::Message() << block.gated << ' ' << type);
      const variable_list in = block.inputs(kMedium);
      const variable_list weights{normal({2, kMedium.rows / 2, kMedium.out}, 9)};
      const Traced exact = run(block.op(MlpMemory::kActivationInput), in, type, weights);
      const Traced packed = run(block.op(MlpMemory::kInt8), in, type, weights);
      EXPECT_TRUE(at::equal(packed.outputs[0], exact.outputs[0]));
      for (std::size_t i = 0; i < in.size(); ++i) {
        const double error = error_of(packed.gradients[i], exact.gradients[i].to(at::kDouble));
        EXPECT_LT(error, type == at::kBFloat16 ? 0.012 : 0.01) << i;
      }
    }
  }
}

TEST(MlpMemory, KeepsWhatTheModeSaysToTheByte) {
  for (const Block& block : kBlocks) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      for (const Sizes& s : {kSmall, kFewRows, kEmpty}) {
        SCOPED_TRACE(::testing::Message() << block.gated << ' ' << type << ' ' << s.rows);
        const std::int64_t rows = s.rows / 2 * 2, inner = rows * s.inner * (block.gated ? 2 : 1);
        variable_list in = leaves_of(block.inputs(s), type);
        const auto bytes = [&](MlpMemory memory) { return kept_beside([&] { return block.op(memory)(in)[0]; }); };
        EXPECT_EQ(bytes(MlpMemory::kActivationInput), inner * static_cast<std::int64_t>(at::elementSize(type)));
        EXPECT_EQ(bytes(MlpMemory::kInput), 0);
        EXPECT_EQ(bytes(MlpMemory::kInt8), stashed_bytes(rows * s.in) + stashed_bytes(inner));
        in[1].requires_grad_(false);
        if (block.gated) in[2].requires_grad_(false);
        EXPECT_EQ(bytes(MlpMemory::kInt8), stashed_bytes(inner)) << "frozen first layer";
        const at::NoGradGuard no_grad;
        EXPECT_EQ(bytes(MlpMemory::kInt8), 0);
      }
    }
  }
}

// A frozen first layer lets go of x.
TEST(MlpMemory, AFrozenFirstLayerDoesNotKeepTheInput) {
  for (const Block& block : kBlocks) {
    variable_list in = leaves_of(block.inputs(kSmall), at::kFloat);
    const at::Tensor leaf = in[0];
    const auto x_bytes = static_cast<std::int64_t>(leaf.nbytes());
    const auto bytes = [&](MlpMemory memory) {
      return kept_beside([&] {
        in[0] = leaf * 2;
        const at::Tensor y = block.op(memory)(in)[0];
        in[0] = at::Tensor();
        return y;
      });
    };
    const std::int64_t all = bytes(MlpMemory::kActivationInput), input = bytes(MlpMemory::kInput);
    EXPECT_EQ(input, x_bytes);
    in[1].requires_grad_(false);
    if (block.gated) in[2].requires_grad_(false);
    EXPECT_EQ(bytes(MlpMemory::kActivationInput), all - x_bytes);
    EXPECT_EQ(bytes(MlpMemory::kInput), x_bytes);
  }
}

TEST(MlpMemory, RetainedGraphsGiveTheSameGradientsAgain) {
  for (const Block& block : kBlocks) {
    for (const MlpMemory memory : kModes) {
      const variable_list in = leaves_of(block.inputs(kSmall), at::kFloat);
      const at::Tensor y = block.op(memory)(in)[0].sum();
      const auto gradients = [&](bool keep) { return torch::autograd::grad({y}, in, {}, keep); };
      const auto first = gradients(true), second = gradients(true), third = gradients(false);
      for (std::size_t i = 0; i < in.size(); ++i) {
        EXPECT_TRUE(at::equal(first[i], second[i]) && at::equal(first[i], third[i])) << i;
      }
    }
  }
}

TEST(MlpMemory, WeightGradientsGoToTheirSlots) {
  for (const Block& block : kBlocks) {
    for (const MlpMemory memory : kModes) {
      const variable_list in = leaves_of(block.inputs(kSmall), at::kFloat);
      const auto expected = torch::autograd::grad({block.op(memory)(in)[0].sum()}, in);
      const variable_list parameters(in.begin() + 1, in.end());
      Sinks sinks(parameters);
      const tensor::GradientSinks::Guard guard(sinks.registry());
      for (int i = 0; i < 2; ++i) block.op(memory)(in)[0].sum().backward();
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        EXPECT_LT(error_of(sinks[i], 2.0 * expected[i + 1].to(at::kDouble)), 1e-5) << i;
        EXPECT_FALSE(parameters[i].grad().defined());
      }
    }
  }
}

TEST(MlpMemory, FrozenPartsAndStridedInputs) {
  for (const Block& block : kBlocks) {
    for (const MlpMemory memory : kModes) {
      const variable_list all = block.inputs(kSmall);
      for (std::size_t only = 0; only < all.size(); ++only) {
        variable_list in;
        for (const auto& tensor : all) in.push_back(tensor.to(at::kFloat));
        in[0] = in[0].transpose(0, 1);
        in[only].requires_grad_();
        const auto gradient = [&](MlpMemory mode) {
          return torch::autograd::grad({block.op(mode)(in)[0].sum()}, {in[only]})[0];
        };
        const at::Tensor expected = gradient(MlpMemory::kActivationInput);
        EXPECT_LT(error_of(gradient(memory), expected.to(at::kDouble)), memory == MlpMemory::kInt8 ? 0.02 : 1e-30);
      }
    }
  }
}

TEST(MlpMemory, SecondDerivativesAndSteppedWeightsAreRefusedInWords) {
  for (const Block& block : kBlocks) {
    for (const MlpMemory memory : kModes) {
      const variable_list in = leaves_of(block.inputs(kSmall), at::kFloat);
      const auto g = torch::autograd::grad({block.op(memory)(in)[0].sum()}, {in[0]}, {}, true, true)[0];
      const auto refused = [](const std::function<void()>& function) {
        return error_text(function).find("mlp: second derivatives are not available") != std::string::npos;
      };
      EXPECT_TRUE(refused([&] { g.sum().backward(); }));
      // Not passed over where another term depends on the same input.
      for (const at::Tensor& input : in) {
        EXPECT_TRUE(refused([&] { torch::autograd::grad({g.sum() + input.sum()}, {input}); }));
      }
      const at::Tensor y = block.op(memory)(in)[0];
      {
        const at::NoGradGuard no_grad;
        in[1].mul_(0.5);
      }
      EXPECT_NE(error_text([&] { y.sum().backward(); }).find("modified by an inplace operation"), std::string::npos);
    }
  }
}

// Tensors without memory stand for another device: the composition inside a segment.
TEST(MlpMemory, OtherDevicesRunTheCompositionAgain) {
  for (const Block& block : kBlocks) {
    variable_list in;
    for (const auto& tensor : block.inputs(kSmall)) in.push_back(tensor.to(at::kMeta).requires_grad_());
    const at::Tensor y = block.op(MlpMemory::kInput)(in)[0];
    EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 9, 19}));
    EXPECT_NE(y.grad_fn()->name().find("SegmentFunction"), std::string::npos);
    const auto gradients = torch::autograd::grad({y.sum()}, in);
    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_EQ(gradients[i].sizes(), in[i].sizes());
  }
}

}  // namespace
}  // namespace gantry::kernels
