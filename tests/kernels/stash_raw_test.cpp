// Raw packing kernels against their rule in double precision, for every instruction set that this processor has.
#include "gantry/kernels/stash/stash_raw.h"

#include <limits>

#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

template <class T>
constexpr double kHalfStep = std::is_same_v<T, float>  ? 0x1p-24
                             : std::is_same_v<T, Bf16> ? 0x1p-8
                                                       : 0x1p-11;
template <class T>
constexpr double kLargest = std::is_same_v<T, float>  ? 0x1.fffffep127
                            : std::is_same_v<T, Bf16> ? 0x1.fep127
                                                      : 65504.0;

template <class T>
struct Packed {
  Guarded<T> restored;
  std::vector<std::int8_t> values;
  Doubles scales;
};

/// Both kernels, in two calls each where there are two groups.
template <class T, class Stash, class Unstash>
Packed<T> pack(Stash stash, Unstash unstash, const Doubles& inputs) {
  const auto n = static_cast<std::int64_t>(inputs.size()), groups = stash_groups(n);
  const Guarded<T> x(inputs);
  Packed<T> result{Guarded<T>(n), std::vector<std::int8_t>(inputs.size() + 1, 77), {}};
  Guarded<Bf16> scales(groups);
  const StashArgs<T> args{x.data(), result.values.data(), scales.data(), n};
  stash(args, 0, groups / 2);
  stash(args, groups / 2, groups);
  const UnstashArgs<T> back{result.values.data(), scales.data(), result.restored.data(), n};
  unstash(back, 0, groups / 2);
  unstash(back, groups / 2, groups);
  EXPECT_TRUE(scales.intact() && result.restored.intact());
  EXPECT_EQ(result.values.back(), 77) << "wrote behind the values";
  result.scales = scales.values();
  return result;
}

/// Calls body.template operator()<T>(stash, unstash) for every type and instruction set.
template <class Body>
void for_all(Body body) {
  const auto one = [&]<class T>(const char* name) {
    const auto stashes = GANTRY_ISA_VERSIONS(stash<T>);
    const auto unstashes = GANTRY_ISA_VERSIONS(unstash<T>);
    for (std::size_t i = 0; i < stashes.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << name << ", version " << static_cast<int>(stashes[i].isa));
      body.template operator()<T>(stashes[i].run, unstashes[i].run);
    }
  };
  one.template operator()<float>("fp32");
  one.template operator()<Bf16>("bf16");
  one.template operator()<Fp16>("fp16");
}

double largest_of(const Doubles& x, std::size_t group) {
  double largest = 0;
  for (std::size_t i = group * kStashGroup; i < std::min(x.size(), (group + 1) * kStashGroup); ++i) {
    largest = std::max(largest, std::abs(x[i]));
  }
  return largest;
}

template <class T>
void expect_within_half_a_scale(const Packed<T>& packed, const Doubles& x) {
  for (std::size_t group = 0; group < packed.scales.size(); ++group) {
    const double scale = packed.scales[group], wanted = largest_of(x, group) / 127.0;
    ASSERT_GE(scale, wanted * (1 - 1e-7)) << "group " << group;
    ASSERT_LE(scale, std::max(wanted * (1 + 0x1p-7) * (1 + 1e-7), 0x1p-126)) << "group " << group;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double scale = packed.scales[i / kStashGroup];
    const double smallest = std::is_same_v<T, Fp16> ? 0x1p-25 : 0;  // half of fp16's smallest subnormal
    ASSERT_LE(std::abs(value_of(packed.restored.data()[i]) - x[i]),
              0.50001 * scale + std::abs(x[i]) * kHalfStep<T> * 1.02 + smallest)
        << "element " << i << " is " << x[i];
    ASSERT_LE(std::abs(packed.values[i]), 127);
  }
}

TEST(StashRaw, ErrorsStayBelowHalfAScaleForEveryLength) {
  for_all([]<class T>(auto stash, auto unstash) {
    for (const std::int64_t n : {1, 15, 16, 17, 63, 64, 65, 79, 128, 577}) {
      SCOPED_TRACE(n);
      Doubles x = normal(n, 5 + n);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0, static_cast<double>(i / 64 % 4) - 2);
      x = rounded<T>(x);
      expect_within_half_a_scale(pack<T>(stash, unstash, x), x);
    }
  });
}

TEST(StashRaw, NormalNumbersLoseLessThanSevenTenthsOfAPercent) {
  for_all([]<class T>(auto stash, auto unstash) {
    const Doubles x = rounded<T>(normal(64 * 500, 3));
    const Packed<T> packed = pack<T>(stash, unstash, x);
    double error = 0, total = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      error += std::pow(value_of(packed.restored.data()[i]) - x[i], 2);
      total += x[i] * x[i];
    }
    EXPECT_LT(std::sqrt(error / total), 0.007);
    EXPECT_GT(std::sqrt(error / total), 0.004);
  });
}

TEST(StashRaw, InstructionSetsAgreeOnScalesAndUpToTiesOnValues) {
  const auto versions = GANTRY_ISA_VERSIONS(stash<float>);
  const auto back = GANTRY_ISA_VERSIONS(unstash<float>);
  const Doubles x = normal(577, 9);
  const auto first = pack<float>(versions[0].run, back[0].run, x);
  for (std::size_t v = 1; v < versions.size(); ++v) {
    const auto other = pack<float>(versions[v].run, back[v].run, x);
    EXPECT_EQ(first.scales, other.scales);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_LE(std::abs(first.values[i] - other.values[i]), 1);
  }
}

TEST(StashRaw, OddNumbersSpoilTheirOwnGroupOnly) {
  for_all([]<class T>(auto stash, auto unstash) {
    for (const double odd : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (const std::size_t place : {64u, 100u, 127u, 128u, 140u}) {  // the last group is a short one
        Doubles x = rounded<T>(normal(141, 2));
        x[place] = odd;
        const auto packed = pack<T>(stash, unstash, x);
        for (std::size_t i = 0; i < x.size(); ++i) {
          ASSERT_EQ(std::isnan(value_of(packed.restored.data()[i])), i / 64 == place / 64) << i << " beside " << place;
        }
      }
    }
  });
}

TEST(StashRaw, ExtremesComeBackFinite) {
  for_all([]<class T>(auto stash, auto unstash) {
    Doubles x(64 * 3 + 1, 0.0);
    x[0] = kLargest<T>;
    x[1] = -kLargest<T>;
    x[2] = kLargest<T> / 3;
    for (int i = 0; i < 64; ++i) x[64 + i] = (i % 2 ? -1e-3 : 1e-3) * i * 0x1p-126;  // subnormal for fp32 and bf16
    x[192] = -0.0;                                                                   // a group of one zero
    x = rounded<T>(x);
    const auto packed = pack<T>(stash, unstash, x);
    expect_within_half_a_scale(packed, x);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_TRUE(std::isfinite(value_of(packed.restored.data()[i]))) << i;
    for (std::size_t i = 128; i < x.size(); ++i) ASSERT_EQ(value_of(packed.restored.data()[i]), 0.0);
  });
}

TEST(StashRaw, EveryMultipleOfAPowerOfTwoIsExact) {
  for_all([]<class T>(auto stash, auto unstash) {
    Doubles x;
    for (int i = -127; i <= 127; ++i) {
      if (x.size() % 64 == 0) x.push_back(127 * 0.25);  // so that every group has the scale 1 / 4
      x.push_back(i * 0.25);
    }
    EXPECT_EQ(pack<T>(stash, unstash, x).restored.values(), x);
  });
}

}  // namespace
}  // namespace gantry::kernels
