// The optimiser's raw kernels: exact split masters, sums of squares, and the update in every instruction set.
#include "gantry/kernels/adamw/adamw_raw.h"

#include <bit>
#include <limits>

#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

constexpr AdamwStep kStep{.learning_rate = 0.01f,
                          .beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .eps = 1e-8f,
                          .weight_decay = 0.1f,
                          .bias_correction1 = 1.0f - 0.9f * 0.9f,
                          .bias_correction2 = 1.0f - 0.95f * 0.95f,
                          .gradient_scale = 0.5f};

struct State {
  Doubles weight, gradient, first, second;
};

State random_state(std::int64_t n) {
  State state{normal(n, 1), normal(n, 2), normal(n, 3, 0.1), normal(n, 4, 0.1)};
  for (auto& v : state.second) v = v * v;
  return {rounded<float>(state.weight), rounded<Bf16>(state.gradient), rounded<float>(state.first),
          rounded<float>(state.second)};
}

// One update in double precision.
State updated(const State& before) {
  State after = before;
  for (std::size_t i = 0; i < before.weight.size(); ++i) {
    const double g = before.gradient[i] * kStep.gradient_scale;
    const double m = double{kStep.beta1} * before.first[i] + (1 - double{kStep.beta1}) * g;
    const double v = double{kStep.beta2} * before.second[i] + (1 - double{kStep.beta2}) * g * g;
    after.first[i] = m;
    after.second[i] = v;
    after.weight[i] =
        before.weight[i] * (1 - double{kStep.learning_rate} * kStep.weight_decay) -
        kStep.learning_rate * (m / kStep.bias_correction1) / (std::sqrt(v / kStep.bias_correction2) + kStep.eps);
  }
  return after;
}

TEST(AdamwRaw, OneUpdateMatchesDoubles) {
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    const State before = random_state(n), expected = updated(before);
    for (const auto& version : GANTRY_ISA_VERSIONS(adamw)) {
      SCOPED_TRACE(base::isa_name(version.isa));
      Guarded<float> weight(before.weight), first(before.first), second(before.second);
      const Guarded<float> gradient(before.gradient);
      const AdamwArgs args{weight.data(), gradient.data(), first.data(), second.data()};
      version.run(args, kStep, 0, n / 3);
      version.run(args, kStep, n / 3, n);
      expect_near(weight, expected.weight, 0.1);
      expect_near(first, expected.first, 0.1);
      expect_near(second, expected.second, 0.01);
    }
  }
}

std::vector<float> joined(const Guarded<Bf16>& weight, const std::vector<std::int16_t>& remainder) {
  std::vector<float> master(remainder.size());
  scalar::join_master(weight.data(), remainder.data(), master.data(), 0, weight.size());
  return master;
}

template <class Gradient>
void check_split_update(std::int64_t n) {
  const State before = random_state(n);
  const auto plain = GANTRY_ISA_VERSIONS(adamw);
  const auto split = GANTRY_ISA_VERSIONS(adamw_split<Gradient>);
  for (std::size_t v = 0; v < plain.size(); ++v) {
    SCOPED_TRACE(base::isa_name(plain[v].isa));
    Guarded<float> master(before.weight), first(before.first), second(before.second);
    Guarded<float> first2(before.first), second2(before.second);
    Guarded<Bf16> weight(n);
    std::vector<std::int16_t> remainder(static_cast<std::size_t>(n));
    scalar::split_master(master.data(), weight.data(), remainder.data(), 0, n);
    const Guarded<float> gradient(before.gradient);
    const Guarded<Gradient> stored_gradient(before.gradient);
    for (int step = 0; step < 5; ++step) {
      plain[v].run({master.data(), gradient.data(), first.data(), second.data()}, kStep, 0, n);
      split[v].run({weight.data(), remainder.data(), stored_gradient.data(), first2.data(), second2.data()}, kStep, 0,
                   n);
    }
    const std::vector<float> result = joined(weight, remainder);
    ASSERT_EQ(std::memcmp(result.data(), master.data(), result.size() * sizeof(float)), 0);
    ASSERT_EQ(first.values(), first2.values());
    ASSERT_EQ(second.values(), second2.values());
    ASSERT_TRUE(weight.intact());
  }
}

TEST(AdamwRaw, SplitMastersTakeTheVerySameSteps) {
  for (const std::int64_t n : kLengths) {
    SCOPED_TRACE(n);
    check_split_update<float>(n);
    check_split_update<Bf16>(n);
  }
}

std::vector<float> awkward_masters() {
  using Limits = std::numeric_limits<float>;
  std::vector<float> masters{0.0f,
                             -0.0f,
                             Limits::infinity(),
                             -Limits::infinity(),
                             Limits::max(),
                             Limits::lowest(),
                             Limits::denorm_min(),
                             -Limits::denorm_min(),
                             Limits::min(),
                             1.0f};
  base::CounterRandom random(9);
  while (masters.size() < 100003) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
    if (!std::isnan(value)) masters.push_back(value);
  }
  for (std::uint32_t low = 0; low < 65536; ++low) masters.push_back(std::bit_cast<float>(0x3f800000u | low));
  return masters;
}

TEST(SplitMaster, EveryBitPatternComesBackAndTheHalfIsTheNearestBf16) {
  const std::vector<float> masters = awkward_masters();
  const auto n = static_cast<std::int64_t>(masters.size());
  const auto splits = GANTRY_ISA_VERSIONS(split_master);
  const auto joins = GANTRY_ISA_VERSIONS(join_master);
  for (std::size_t v = 0; v < splits.size(); ++v) {
    SCOPED_TRACE(base::isa_name(splits[v].isa));
    Guarded<Bf16> weight(n);
    std::vector<std::int16_t> remainder(masters.size());
    splits[v].run(masters.data(), weight.data(), remainder.data(), 0, n);
    std::vector<float> back(masters.size());
    joins[v].run(weight.data(), remainder.data(), back.data(), 0, n);
    ASSERT_EQ(std::memcmp(back.data(), masters.data(), back.size() * sizeof(float)), 0);
    for (std::size_t i = 0; i < masters.size(); ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(masters[i]);
      const bool tie = (bits & 0xffffu) == 0x8000u;  // rounds half up, not to even
      ASSERT_EQ(weight.data()[i].bits, tie ? (bits >> 16) + 1 : base::float_to_bf16(masters[i])) << masters[i];
    }
  }
}

TEST(SplitMaster, NanStaysNan) {
  std::vector<float> masters;
  for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff80ffffu, 0x7fffffffu, 0xffffffffu}) {
    masters.push_back(std::bit_cast<float>(bits));
  }
  for (const auto& version : GANTRY_ISA_VERSIONS(split_master)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<Bf16> weight(static_cast<std::int64_t>(masters.size()));
    std::vector<std::int16_t> remainder(masters.size());
    version.run(masters.data(), weight.data(), remainder.data(), 0, weight.size());
    for (const float value : joined(weight, remainder)) EXPECT_TRUE(std::isnan(value));
    for (const double value : weight.values()) EXPECT_TRUE(std::isnan(value));
  }
}

TEST(SumOfSquaresRaw, MatchesDoublesAcrossBlocks) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : {0, 1, 17, 4095, 4096, 4097, 20011}) {
      SCOPED_TRACE(n);
      const Doubles values = rounded<T>(normal(n, 6));
      double expected = 0;
      for (std::int64_t i = n / 5; i < n; ++i)
        expected += values[static_cast<std::size_t>(i)] * values[static_cast<std::size_t>(i)];
      const Guarded<T> x(values);
      for (const auto& version : GANTRY_ISA_VERSIONS(sum_of_squares<T>)) {
        EXPECT_NEAR(version.run(x.data(), n / 5, n), expected, expected * 1e-6) << base::isa_name(version.isa);
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
