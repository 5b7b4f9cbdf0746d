// What every memory mode of a layer keeps, and that the gradients are those of `store`.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include "gantry/models/layer_stack.h"
#include "gantry/spec/memory_modes.h"
#include "tests/models/golden.h"
#include "tests/test_support.h"

namespace gantry::models {
namespace {

using layers::LayerMemory;
using layers::MemoryMode;
using testing::relative_error;

spec::ModelConfig small(spec::Family family, double dropout = 0.1) {
  spec::ModelConfig config;
  config.family = family;
  config.hidden_size = 64;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = family == spec::Family::kLlama ? 2 : 4;
  config.head_dim = 16;
  config.intermediate_size = family == spec::Family::kLlama ? 160 : 256;
  config.max_positions = 128;
  config.activation = family == spec::Family::kLlama  ? spec::Activation::kSilu
                      : family == spec::Family::kGpt2 ? spec::Activation::kGeluTanh
                                                      : spec::Activation::kGeluErf;
  config.dropout = config.attention_dropout = family == spec::Family::kLlama ? 0.0 : dropout;
  config.initializer_range = 0.2;
  return config;
}

spec::ModelConfig with_heads(spec::ModelConfig config, std::int64_t count) {
  config.num_kv_heads = std::min(config.num_kv_heads, count);
  config.num_heads = count;
  config.head_dim = config.hidden_size / count;
  return config;
}

constexpr std::int64_t kBatch = 2, kTokens = 48;

at::Tensor random_states(const spec::ModelConfig& config, at::ScalarType type, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn({kBatch, kTokens, config.hidden_size}, generator, at::dtype(at::kDouble)).to(type);
}

struct Gradients {
  at::Tensor out;
  std::vector<std::pair<std::string, at::Tensor>> of;  ///< "x" and every parameter
};

// Output and gradients of <out, cotangent> with the dropout of seed 5.
Gradients run(LayerStack& stack, const spec::ModelConfig& config, const LayerMemory& memory, at::ScalarType type) {
  stack.to(type);
  stack.train();
  stack.memory.assign(stack.memory.size(), memory);
  const at::Tensor x = random_states(config, type, 1).requires_grad_();
  const at::Tensor cotangent = random_states(config, type, 2);
  at::manual_seed(5);
  Gradients result;
  result.out = stack.forward(x * 1.0);
  result.out.backward(cotangent);
  result.of.emplace_back("x", x.grad());
  for (const auto& item : stack.named_parameters()) {
    result.of.emplace_back(item.key(), item.value().grad().clone());
    item.value().mutable_grad().reset();
  }
  return result;
}

bool zero_in_exact_arithmetic(const std::string& name) {
  return name.ends_with("key.bias") || name.ends_with("k_proj.bias");
}

struct ModeCase {
  spec::Family family;
  LayerMemory memory;
};

std::string case_name(const ::testing::TestParamInfo<ModeCase>& info) {
  std::string name(spec::family_name(info.param.family));
  name += "_" + spec::describe(info.param.memory);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

std::vector<ModeCase> exact_cases() {
  std::vector<ModeCase> result;
  for (const auto family : {spec::Family::kBert, spec::Family::kGpt2, spec::Family::kLlama}) {
    for (const auto mode : {MemoryMode::kStore, MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun}) {
      result.push_back({family, {mode, mode, mode}});
    }
  }
  return result;
}

class ExactMode : public ::testing::TestWithParam<ModeCase> {};

// Issue: relative error <= 1e-6 of a directional derivative with dropout, the mask fixed.
TEST_P(ExactMode, GradientsWithDropoutMatchFiniteDifferencesInFp64) {
  const spec::ModelConfig config = small(GetParam().family);
  const auto stack = make_layer_stack(config, 3);
  const Gradients gradients = run(*stack, config, GetParam().memory, at::kDouble);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  double expected = 0;
  std::vector<at::Tensor> directions;
  const auto parameters = stack->named_parameters();
  for (const auto& item : parameters) {
    directions.push_back(at::randn(item.value().sizes(), generator, at::dtype(at::kDouble)) * 0.1);
  }
  for (std::size_t i = 0; i < directions.size(); ++i) {
    expected += at::sum(directions[i] * gradients.of[i + 1].second).item<double>();
  }
  const at::NoGradGuard no_grad;
  const at::Tensor x = random_states(config, at::kDouble, 1), cotangent = random_states(config, at::kDouble, 2);
  const auto value_at = [&](double step) {
    for (std::size_t i = 0; i < directions.size(); ++i) at::Tensor(parameters[i].value()).add_(directions[i], step);
    at::manual_seed(5);
    return at::sum(stack->forward(x) * cotangent).item<double>();
  };
  const double h = 1e-4;  // Richardson's extrapolation of two central differences
  const double fine = (value_at(h) - value_at(-2 * h)) / (2 * h);
  value_at(h);
  const double coarse = (value_at(2 * h) - value_at(-4 * h)) / (4 * h);
  const double got = (4 * fine - coarse) / 3;
  EXPECT_LE(std::abs(got - expected), 1e-6 * std::abs(expected)) << "expected " << expected << ", got " << got;
}

TEST_P(ExactMode, Fp32GradientsAreThoseOfStoreInFp64) {
  for (const std::int64_t heads : {4, 2}) {  // of 16 and of 32 elements, whose output carries the log-sums
    SCOPED_TRACE(heads);
    const spec::ModelConfig config = with_heads(small(GetParam().family), heads);
    const auto stack = make_layer_stack(config, 3);
    const Gradients expected =
        run(*stack, config, {MemoryMode::kStore, MemoryMode::kStore, MemoryMode::kStore}, at::kDouble);
    const Gradients got = run(*stack, config, GetParam().memory, at::kFloat);
    EXPECT_LE(relative_error(got.out.to(at::kDouble), expected.out), 1e-5);
    for (std::size_t i = 0; i < expected.of.size(); ++i) {
      const auto& [name, gradient] = expected.of[i];
      if (zero_in_exact_arithmetic(name)) continue;
      // The in-place GELU's fit errs by up to 1.5e-4 at single elements.
      const double tolerance = GetParam().memory.mlp == MemoryMode::kInPlace ? 2e-4 : 2e-5;
      EXPECT_LE(relative_error(got.of[i].second.to(at::kDouble), gradient), tolerance) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExactMode, ::testing::ValuesIn(exact_cases()), case_name);

TEST(Int8Mode, GradientsAreCloseToThoseOfStore) {
  for (const auto family : {spec::Family::kBert, spec::Family::kGpt2, spec::Family::kLlama}) {
    const spec::ModelConfig config = small(family);
    const auto stack = make_layer_stack(config, 3);
    constexpr auto kStore = MemoryMode::kStore, kInt8 = MemoryMode::kInt8;
    const Gradients expected = run(*stack, config, {kStore, kStore, kStore}, at::kFloat);
    const Gradients got = run(*stack, config, {kInt8, kInt8, kInt8}, at::kFloat);
    EXPECT_LE(relative_error(got.out, expected.out), 1e-5) << "the forward pass is exact";
    for (std::size_t i = 0; i < expected.of.size(); ++i) {
      const auto& [name, gradient] = expected.of[i];
      if (zero_in_exact_arithmetic(name)) continue;
      const double error = ((got.of[i].second - gradient).norm() / gradient.norm()).item<double>();
      EXPECT_LE(error, 0.03) << spec::family_name(family) << " " << name;
      if (name != "x") continue;
      EXPECT_GT(error, 0) << "int8 was not in force";
    }
  }
}

TEST(MemoryModes, EvaluationIsTheSameInEveryMode) {
  for (const auto family : {spec::Family::kBert, spec::Family::kGpt2, spec::Family::kLlama}) {
    const spec::ModelConfig config = small(family);
    const auto stack = make_layer_stack(config, 3);
    stack->eval();
    const at::NoGradGuard no_grad;
    const at::Tensor x = random_states(config, at::kFloat, 1);
    at::Tensor first;
    for (const MemoryMode mode :
         {MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8}) {
      stack->memory.assign(stack->memory.size(), {mode, mode, mode});
      const at::Tensor out = stack->forward(x);
      if (!first.defined()) first = out;
      EXPECT_TRUE(at::equal(out, first)) << spec::memory_mode_name(mode);
    }
  }
}

// Units of the design's section 5: elements of one [B, S, H] tensor; small terms counted to the byte.
struct Sizes {
  std::int64_t b, s, h, a, kv, inner, width;
  bool fp32() const { return width == 4; }
  std::int64_t states(std::int64_t count) const { return count * b * s * h * width; }
  std::int64_t qkv() const { return b * s * (h + 2 * kv * (h / a)) * width; }
  std::int64_t inner_states() const { return b * s * inner * width; }
  // 1 / deviation and log-sums; in fp32 the last bits of rows of at least 32 elements carry them.
  std::int64_t rows() const { return fp32() && h >= 32 ? 0 : 4 * b * s; }
  std::int64_t lse() const { return fp32() && h / a >= 32 ? 0 : 4 * b * a * s; }
  std::int64_t scores() const { return b * a * s * s * width; }
};

Sizes sizes_of(const spec::ModelConfig& c, std::int64_t batch, std::int64_t tokens, at::ScalarType type) {
  return {batch, tokens, c.hidden_size, c.num_heads, c.num_kv_heads, c.intermediate_size, type == at::kFloat ? 4 : 2};
}

TEST(SavedBytes, OfPlainMlpLayersEqualTheFormulas) {
  for (const auto& [family, heads] : {std::pair<spec::Family, std::int64_t>{spec::Family::kBert, 4},
                                      {spec::Family::kGpt2, 4},
                                      {spec::Family::kBert, 2}}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const spec::ModelConfig config = with_heads(small(family), heads);
      const Sizes z = sizes_of(config, kBatch, kTokens, type);
      const auto measured = [&](const LayerMemory& memory) {
        return saved_layer_bytes(config, memory, kBatch, kTokens, type);
      };
      constexpr auto kInPlace = MemoryMode::kInPlace, kRecompute = MemoryMode::kRecompute, kRerun = MemoryMode::kRerun;
      const std::int64_t norms = z.states(2) + 2 * z.rows();  // y, the input of attention or MLP, and 1 / deviation
      // Q, K, V, probabilities, output; the output of GELU and its bits.
      EXPECT_EQ(measured({kInPlace, kInPlace, kInPlace}),
                norms + z.qkv() + z.scores() + z.states(1) + z.inner_states() + z.b * z.s * z.inner / 8);
      // Flash attention: log-sums for the probabilities.
      EXPECT_EQ(measured({kRecompute, kInPlace, kInPlace}),
                norms + z.qkv() + z.lse() + z.states(1) + z.inner_states() + z.b * z.s * z.inner / 8);
      // The fused MLP needs no bits.
      EXPECT_EQ(measured({kRecompute, kRecompute, kInPlace}),
                norms + z.qkv() + z.lse() + z.states(1) + z.inner_states());
      // The MLP runs its first linear again.
      EXPECT_EQ(measured({kRecompute, kRerun, kInPlace}), norms + z.qkv() + z.lse() + z.states(1));
      // So does attention.
      EXPECT_EQ(measured({kRerun, kRerun, kInPlace}), norms + z.states(1));
    }
  }
}

TEST(SavedBytes, OfGatedMlpLayersEqualTheFormulas) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const spec::ModelConfig config = small(spec::Family::kLlama);
    const Sizes z = sizes_of(config, kBatch, kTokens, type);
    const auto measured = [&](const LayerMemory& memory) {
      return saved_layer_bytes(config, memory, kBatch, kTokens, type);
    };
    constexpr auto kInPlace = MemoryMode::kInPlace, kRecompute = MemoryMode::kRecompute, kRerun = MemoryMode::kRerun;
    const std::int64_t norms = z.states(2) + 2 * z.rows();
    EXPECT_EQ(measured({kInPlace, kInPlace, kInPlace}),
              norms + z.qkv() + z.scores() + z.states(1) + 2 * z.inner_states());
    EXPECT_EQ(measured({kRecompute, kRecompute, kInPlace}),
              norms + z.qkv() + z.lse() + z.states(1) + 2 * z.inner_states());
    EXPECT_EQ(measured({kRerun, kRerun, kInPlace}), norms + z.states(1));
  }
}

TEST(SavedBytes, Int8KeepsAByteAnElementAndItsScales) {
  const spec::ModelConfig config = small(spec::Family::kBert);
  constexpr auto kInt8 = MemoryMode::kInt8;
  const std::int64_t bsh = kBatch * kTokens * config.hidden_size;
  const auto packed = [](std::int64_t n) { return kernels::stashed_bytes(n); };
  // Norm inputs, block inputs, Q K V, attention's output, GELU's input; every count is a multiple of a group.
  EXPECT_EQ(
      saved_layer_bytes(config, {kInt8, kInt8, kInt8}, kBatch, kTokens, at::kFloat),
      2 * (packed(bsh) + 4 * kBatch * kTokens) + 2 * packed(bsh) + packed(3 * bsh) + packed(bsh) + packed(4 * bsh));
}

// Heads of 32 elements carry the log-sums, norms their 1 / deviation.
TEST(SavedBytes, InFp32AreThoseOfTheTensorsAlone) {
  const spec::ModelConfig bert = with_heads(small(spec::Family::kBert), 2);
  const std::int64_t bsh = kBatch * kTokens * bert.hidden_size * 4;
  constexpr auto kInPlace = MemoryMode::kInPlace, kRecompute = MemoryMode::kRecompute, kRerun = MemoryMode::kRerun;
  EXPECT_EQ(saved_layer_bytes(bert, {kRecompute, kRecompute, kInPlace}, kBatch, kTokens, at::kFloat), 10 * bsh);
  EXPECT_EQ(saved_layer_bytes(bert, {kRecompute, kRerun, kInPlace}, kBatch, kTokens, at::kFloat), 6 * bsh);
  EXPECT_EQ(saved_layer_bytes(bert, {kRerun, kRerun, kInPlace}, kBatch, kTokens, at::kFloat), 3 * bsh);
}

// The planner's bytes are the measured ones.
TEST(SavedBytes, AreThoseOfTheOperatorGraph) {
  for (const auto& [family, heads] : {std::pair<spec::Family, std::int64_t>{spec::Family::kBert, 4},
                                      {spec::Family::kGpt2, 2},
                                      {spec::Family::kLlama, 4},
                                      {spec::Family::kLlama, 2}}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const spec::ModelConfig config = with_heads(small(family), heads);
      spec::GraphOptions options;
      options.numbers_in_last_bits = true;
      options.activation_bytes = options.weight_bytes = type == at::kFloat ? 4 : 2;
      for (const auto attention :
           {MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8}) {
        for (const auto mlp : {MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8}) {
          for (const auto norm : {MemoryMode::kInPlace, MemoryMode::kInt8}) {
            const LayerMemory memory{attention, mlp, norm};
            const double expected =
                spec::memory_cost(config, options, memory)
                    .saved_bytes.evaluate({.batch = kBatch, .sequence = kTokens, .tensor_parallel = 1});
            EXPECT_EQ(static_cast<double>(saved_layer_bytes(config, memory, kBatch, kTokens, type)), expected)
                << spec::family_name(family) << " of " << heads << " heads, " << c10::toString(type) << " "
                << spec::describe(memory);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace gantry::models
