// Activations that keep their output: gradients, what is kept, in-place rules and the traps of autograd.
#include "gantry/kernels/activation/activation.h"

#include "gantry/kernels/linear/linear.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr Activation kKinds[] = {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu,
                                 Activation::kQuickGelu};
constexpr SideFlag kSides[] = {SideFlag::kByte, SideFlag::kBit, SideFlag::kLowBit};

Op plain_activation(Activation kind) {
  return [=](const variable_list& in) -> variable_list { return {activation_reference(in[0], kind)}; };
}
Op activation_op(const ActivationOptions& options) {
  return [=](const variable_list& in) -> variable_list { return {activation(in[0], options)}; };
}
/// Overwrites an intermediate tensor, as a layer does with its linear's output.
Op overwriting(ActivationOptions options) {
  options.overwrite = true;
  return [=](const variable_list& in) -> variable_list { return {activation(in[0] + 0.0, options)}; };
}

/// Bytes that live on behind a result, the result's own storage included.
template <class Body>
std::int64_t kept_bytes_with_result(Body body) {
  const tensor::LiveBytes live;
  const at::Tensor result = body();
  return live.now();
}

at::Tensor slope(const at::Tensor& y, const at::Tensor& x, bool keep = false) {
  return torch::autograd::grad({y}, {x}, {at::ones_like(y)}, keep)[0];
}

TEST(Activation, ValuesAndGradientsMatchTheReferenceInFp64) {
  for (const Activation kind : kKinds) {
    for (const SideFlag side : kSides) {
      const ActivationOptions options{.kind = kind, .side = side};
      for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {1}, {5, 33}, {90, 257}, {0, 8}}) {
        SCOPED_TRACE(::testing::PrintToString(shape) + std::to_string(static_cast<int>(kind)));
        // Beside eager bf16, which rounds the slope only once, the bound is that of the stored output.
        const double bf16_factor = side == SideFlag::kLowBit ? 4.0 : 2.5;
        expect_matches(activation_op(options), plain_activation(kind), {normal(shape, 1, 2.0)}, bf16_factor);
        expect_matches(overwriting(options), plain_activation(kind), {normal(shape, 1, 2.0)}, bf16_factor);
      }
    }
  }
}

TEST(Activation, ErrorBarsOfTheSlopeInFp32) {
  const at::Tensor sweep = at::linspace(-12, 20, 1000001, at::kDouble).to(at::kFloat);
  const at::Tensor likely = normal({1000000}, 3).to(at::kFloat);
  for (const Activation kind : {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu}) {
    const auto difference = [&](const at::Tensor& input) {
      const at::Tensor x = input.clone().requires_grad_(), exact = input.to(at::kDouble).requires_grad_();
      return slope(activation(x, {.kind = kind}), x).to(at::kDouble) - slope(activation_reference(exact, kind), exact);
    };
    EXPECT_LE(difference(sweep).abs().max().item<double>(), 1.5e-4);
    EXPECT_LE(difference(likely).square().mean().sqrt().item<double>(), 3e-6);
  }
}

// Finite differences of the operator itself, as gradcheck takes them.
TEST(Activation, Fp64GradientsMatchFiniteDifferences) {
  const at::Tensor x =
      at::cat({normal({200}, 4, 3.0), at::tensor({-0.7517, -0.753, -1.2784, 0.0, -9.0, 30.0}, at::kDouble)});
  for (const Activation kind : kKinds) {
    for (const SideFlag side : kSides) {
      const ActivationOptions options{.kind = kind, .side = side};
      const at::Tensor leaf = x.clone().requires_grad_();
      const at::Tensor analytic = slope(activation(leaf, options), leaf);
      const at::Tensor numeric = (activation(x + 1e-6, options) - activation(x - 1e-6, options)) / 2e-6;
      EXPECT_TRUE(at::allclose(analytic, numeric, 1e-3, 1e-5));
      EXPECT_LT((analytic - numeric).abs().max().item<double>(), 2e-6);
    }
  }
}

TEST(Activation, KeepsItsOutputAndTheFlagToTheByte) {
  constexpr std::int64_t kRows = 37, kColumns = 41, kCount = kRows * kColumns;
  const std::int64_t flag_bytes[] = {kCount, (kCount + 7) / 8, 0};
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    const at::Tensor x = normal({kRows, kColumns}, 5).to(type).requires_grad_();
    for (int i = 0; i < 3; ++i) {
      const auto kept = kept_bytes_with_result([&] { return activation(x, {.side = kSides[i]}); });
      EXPECT_EQ(kept, kCount * static_cast<std::int64_t>(x.element_size()) + flag_bytes[i]);
    }
    const at::NoGradGuard no_grad;
    EXPECT_EQ(kept_bytes_with_result([&] { return activation(x, {}).sum(at::kFloat); }), 4);
  }
}

// The next layer keeps the output, too: with the last bit as flag the activation itself costs nothing.
TEST(Activation, SharesItsOutputWithTheNextLayer) {
  const at::Tensor x = normal({64, 32}, 6).to(at::kFloat).requires_grad_();
  const at::Tensor weight = normal({16, 32}, 7).to(at::kFloat).requires_grad_();
  const auto kept = kept_bytes_with_result(
      [&] { return at::linear(activation(x * 1.0, {.side = SideFlag::kLowBit, .overwrite = true}), weight); });
  EXPECT_EQ(kept, 64 * 32 * 4 + 64 * 16 * 4);
  const auto stock = kept_bytes_with_result([&] { return at::linear(at::gelu(x * 1.0), weight); });
  EXPECT_EQ(stock, 2 * 64 * 32 * 4 + 64 * 16 * 4);
}

TEST(Activation, WritesOverItsInputWhereItMay) {
  const at::Tensor leaf = normal({8, 9}, 8).to(at::kFloat).requires_grad_();
  at::Tensor x = leaf * 1.0;
  const void* place = x.data_ptr();
  const at::Tensor y = activation(x, {.overwrite = true});
  EXPECT_EQ(y.data_ptr(), place);
  EXPECT_TRUE(y.is_same(x));
  EXPECT_TRUE(at::allclose(y, at::gelu(leaf)));
  EXPECT_EQ(overwrite_refusal(leaf), "input is a leaf that wants a gradient");
  EXPECT_EQ(overwrite_refusal((leaf * 1.0).view({72})), "input is a view of another tensor");
  EXPECT_EQ(overwrite_refusal(at::zeros({1, 4}).expand({3, 4})), "input elements overlap or have gaps between them");
  EXPECT_EQ(overwrite_refusal(at::zeros({3}, at::kLong)), "no kernel for this device and type");
  EXPECT_EQ(overwrite_refusal(at::zeros({3, 4}).t()), "");
  // What our own linear returns may be overwritten, whatever its shape.
  const at::Tensor projected = kernels::linear(leaf.view({2, 4, 9}), at::ones({5, 9}).requires_grad_());
  EXPECT_EQ(overwrite_refusal(projected), "");
  // Refused: a new tensor, and the input stays.
  const at::Tensor before = leaf.detach().clone();
  EXPECT_NE(activation(leaf, {.overwrite = true}).data_ptr(), leaf.data_ptr());
  EXPECT_TRUE(at::equal(leaf, before));
  const at::NoGradGuard no_grad;
  at::Tensor free = before.clone();
  EXPECT_EQ(activation(free, {.overwrite = true}).data_ptr(), free.data_ptr());
}

TEST(Activation, AnOverwrittenInputThatAnotherOperatorKeptIsAnError) {
  const at::Tensor leaf = normal({8}, 9).to(at::kFloat).requires_grad_();
  const at::Tensor x = leaf * 1.0;
  const at::Tensor square = x * x;  // keeps x
  const at::Tensor y = activation(x, {.overwrite = true});
  EXPECT_NE(error_text([&] { (square.sum() + y.sum()).backward(); }).find("modified by an inplace operation"),
            std::string::npos);
}

TEST(Activation, AnOutputModifiedBeforeTheBackwardPassIsAnError) {
  const at::Tensor x = normal({8}, 9).to(at::kFloat).requires_grad_();
  at::Tensor y = activation(x, {});
  {
    const at::NoGradGuard no_grad;
    y.mul_(2);
  }
  EXPECT_NE(error_text([&] { y.sum().backward(); }).find("modified by an inplace operation"), std::string::npos);
}

TEST(Activation, RetainedGraphsGiveTheSameGradientTwice) {
  for (const bool overwrite : {false, true}) {
    const at::Tensor x = normal({50, 7}, 10).to(at::kFloat).requires_grad_();
    const at::Tensor y = activation(x * 1.0, {.overwrite = overwrite});
    const at::Tensor first = slope(y, x, true), second = slope(y, x, true), third = slope(y, x);
    EXPECT_TRUE(at::equal(first, second) && at::equal(first, third));
  }
}

TEST(Activation, SecondDerivativesAreRefusedInWords) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = normal({8}, 11).to(type).requires_grad_();
    const at::Tensor y = activation(x, {});
    const at::Tensor g = torch::autograd::grad({y.sum()}, {x}, {}, true, true)[0];
    EXPECT_TRUE(at::allclose(g, slope(activation_reference(x, Activation::kGeluErf), x), 1e-3, 1e-3));
    EXPECT_NE(error_text([&] { g.sum().backward(); }).find("activation: second derivatives are not available"),
              std::string::npos);
  }
}

TEST(Activation, StridedExpandedAndChannelsLastInputs) {
  const at::Tensor base = normal({6, 4, 5, 7}, 12).to(at::kFloat);
  const std::vector<std::function<at::Tensor(const at::Tensor&)>> layouts = {
      [](const at::Tensor& x) { return x.transpose(0, 3); },
      [](const at::Tensor& x) { return x.narrow(3, 1, 4); },
      [](const at::Tensor& x) {
        return x.narrow(0, 0, 1).expand({3, 4, 5, 7});
      },
      [](const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); },
      [](const at::Tensor& x) { return x.slice(2, 0, 5, 2); },
  };
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    SCOPED_TRACE(i);
    const auto layout = layouts[i];
    const auto strided = [&](const Op& f) { return [&, f](const variable_list& in) { return f({layout(in[0])}); }; };
    const Op op = activation_op({.kind = Activation::kSilu}), reference = plain_activation(Activation::kSilu);
    expect_matches(strided(op), strided(reference), {base.to(at::kDouble)}, 3.0);
    const at::Tensor x = layout(base), before = x.clone();
    (void)activation(x.detach().requires_grad_(), {});
    EXPECT_TRUE(at::equal(x, before)) << "the input was changed";
  }
  // A gradient that lies otherwise in memory than the output.
  const at::Tensor x = normal({30, 40}, 13).to(at::kFloat).requires_grad_();
  const at::Tensor weights = normal({40, 30}, 14).to(at::kFloat);
  const at::Tensor g = torch::autograd::grad({activation(x, {})}, {x}, {weights.t()})[0];
  const at::Tensor expected = torch::autograd::grad({at::gelu(x)}, {x}, {weights.t()})[0];
  EXPECT_TRUE(at::allclose(g, expected, 1e-4, 5e-4));
}

TEST(Activation, NanStaysAndInfinityIsLinear) {
  const at::Tensor values = at::tensor({NAN, INFINITY, -INFINITY, 0.0f, 1.0f});
  for (const Activation kind : kKinds) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      for (const SideFlag side : kSides) {
        const at::Tensor x = values.to(type).requires_grad_();
        const at::Tensor y = activation(x, {.kind = kind, .side = side});
        EXPECT_TRUE(at::equal(y.isnan(), at::tensor({1, 0, 1, 0, 0}).to(at::kBool))) << y;
        EXPECT_EQ(y[1].item<float>(), INFINITY);
        const at::Tensor g = slope(y, x);
        EXPECT_TRUE(g[0].isnan().item<bool>() && g[2].isnan().item<bool>());
        EXPECT_EQ(g[1].item<float>(), 1.0f);
        EXPECT_NEAR(g[3].item<float>(), 0.5, 5e-3);
        // A gradient that is not finite stays so.
        const at::Tensor odd = at::tensor({1.0f, 1.0f, 1.0f, NAN, INFINITY}).to(type);
        const at::Tensor again = torch::autograd::grad({activation(x, {.kind = kind, .side = side})}, {x}, {odd})[0];
        EXPECT_TRUE(again[3].isnan().item<bool>() && again[4].item<float>() == INFINITY);
      }
    }
  }
}

// Without gradients no last bit is marked: an evaluation has the plain values.
TEST(Activation, EvaluationMarksNothing) {
  const at::Tensor x = normal({1000}, 15).to(at::kFloat);
  const at::Tensor plain_values = activation(x, {.side = SideFlag::kBit}),
                   value = activation(x, {.side = SideFlag::kLowBit});
  EXPECT_TRUE(at::equal(plain_values, value));
  EXPECT_FALSE(value.requires_grad());
  const at::Tensor marked = activation(x.clone().requires_grad_(), {.side = SideFlag::kLowBit}).detach();
  EXPECT_FALSE(at::equal(marked, value));
  EXPECT_LE(((marked - value) / value).abs().max().item<double>(), 1.3e-7);
  EXPECT_MESSAGE(activation(x, {.side = SideFlag::kNone}), "side flag kNone keeps no side; use kByte, kBit or kLowBit");
}

TEST(Activation, AnyNumberOfThreadsGivesTheSameBits) {
  const at::Tensor x = normal({333, 517}, 16).to(at::kFloat).requires_grad_();
  const int threads = at::get_num_threads();
  const auto run = [&](int count) {
    at::set_num_threads(count);
    const at::Tensor y = activation(x, {.side = SideFlag::kBit});
    return std::pair(y.detach(), slope(y, x));
  };
  const auto one = run(1), two = run(2);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.first, two.first) && at::equal(one.second, two.second));
}

}  // namespace
}  // namespace gantry::kernels
