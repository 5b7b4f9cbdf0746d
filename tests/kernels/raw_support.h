#pragma once
// Helpers of the raw kernels' tests: every version that this processor runs, guarded buffers, and comparison with
// results in double precision. Torch-free.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "gantry/base/half.h"
#include "gantry/base/isa.h"
#include "gantry/base/random.h"
#include "gantry/kernels/activation/activation_raw.h"  // Fp16
#include "gantry/kernels/cpu/bf16.h"

namespace gantry::kernels::testing {

template <class Function>
struct IsaVersion {
  base::Isa isa;
  Function run;
};

/// The versions of one kernel that this processor runs, the scalar one first.
template <class Function>
std::vector<IsaVersion<Function>> usable_versions(Function scalar, Function avx2, Function avx512,
                                                  Function avx512_bf16) {
  std::vector<IsaVersion<Function>> versions{{base::Isa::kScalar, scalar}};
  const base::Isa best = base::best_isa();
  if (best >= base::Isa::kAvx2) versions.push_back({base::Isa::kAvx2, avx2});
  if (best >= base::Isa::kAvx512) versions.push_back({base::Isa::kAvx512, avx512});
  if (best >= base::Isa::kAvx512Bf16) versions.push_back({base::Isa::kAvx512Bf16, avx512_bf16});
  return versions;
}

#if defined(__x86_64__)
#define GANTRY_ISA_VERSIONS(...) \
  usable_versions(&scalar::__VA_ARGS__, &avx2::__VA_ARGS__, &avx512::__VA_ARGS__, &avx512_bf16::__VA_ARGS__)
#else
#define GANTRY_ISA_VERSIONS(...) \
  usable_versions(&scalar::__VA_ARGS__, &scalar::__VA_ARGS__, &scalar::__VA_ARGS__, &scalar::__VA_ARGS__)
#endif

inline double value_of(float x) { return x; }
inline double value_of(Bf16 x) { return base::bf16_to_float(x.bits); }
inline double value_of(Fp16 x) { return base::fp16_to_float(x.bits); }
template <class T>
T stored(double x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {base::float_to_bf16(static_cast<float>(x))};
  } else if constexpr (std::is_same_v<T, Fp16>) {
    return {base::float_to_fp16(static_cast<float>(x))};
  } else {
    return static_cast<T>(x);
  }
}

using Doubles = std::vector<double>;

/// An array between two guards; `intact()` tells whether a kernel wrote outside. A fresh one is full of NaN.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::int64_t n) : cells_(static_cast<std::size_t>(n) + 2 * kGuard, stored<T>(kCanary)) {
    for (std::int64_t i = 0; i < n; ++i) data()[i] = stored<T>(std::nan(""));
  }
  explicit Guarded(const Doubles& values) : Guarded(static_cast<std::int64_t>(values.size())) {
    for (std::size_t i = 0; i < values.size(); ++i) data()[i] = stored<T>(values[i]);
  }
  T* data() { return cells_.data() + kGuard; }
  const T* data() const { return cells_.data() + kGuard; }
  std::int64_t size() const { return static_cast<std::int64_t>(cells_.size() - 2 * kGuard); }
  /// What is stored, after rounding to T.
  Doubles values() const {
    Doubles result;
    for (std::int64_t i = 0; i < size(); ++i) result.push_back(value_of(data()[i]));
    return result;
  }
  bool intact() const {
    for (std::size_t i = 0; i < kGuard; ++i) {
      if (value_of(cells_[i]) != kCanary || value_of(cells_[cells_.size() - 1 - i]) != kCanary) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kGuard = 32;
  static constexpr double kCanary = 96.0;  // exact in bf16
  std::vector<T> cells_;
};

/// Normally distributed numbers from a seed.
inline Doubles normal(std::int64_t n, std::uint64_t seed, double deviation = 1.0, double mean = 0.0) {
  base::CounterRandom random(seed);
  Doubles result(static_cast<std::size_t>(n));
  for (auto& x : result) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
    x = mean + deviation * radius * std::cos(2.0 * M_PI * random.uniform());
  }
  return result;
}

/// Values as type T stores them.
template <class T>
Doubles rounded(const Doubles& values) {
  return Guarded<T>(values).values();
}

/// Bound for results that are rounded to T once: relative to each value, and to `scale` for sums that cancel.
template <class T>
double tolerance(double expected, double scale = 1.0) {
  const double single = 1e-5 * (std::abs(expected) + scale);
  if (std::is_same_v<T, Fp16>) return single + std::abs(expected) * 0x1p-11;
  return std::is_same_v<T, Bf16> ? single + std::abs(expected) * 0x1p-8 : single;
}

template <class T>
void expect_near(const Guarded<T>& actual, const Doubles& expected, double scale = 1.0) {
  ASSERT_EQ(actual.size(), static_cast<std::int64_t>(expected.size()));
  EXPECT_TRUE(actual.intact()) << "wrote outside its range";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(value_of(actual.data()[i]), expected[i], tolerance<T>(expected[i], scale)) << "element " << i;
  }
}

/// Lengths around the vector width, and a model-like odd one.
inline const std::vector<std::int64_t> kLengths{1, 15, 16, 17, 31, 33, 64, 100, 577};

inline constexpr std::int64_t kRows = 5;

/// Rows 0 to 1 and 2 to 4 in separate calls, as two threads would.
template <class Function, class Args>
void run_rows(Function run, const Args& args) {
  run(args, 0, 2);
  run(args, 2, kRows);
}

/// Runs body.template operator()<float>() and <Bf16>(), each under a trace.
template <class Body>
void for_both_types(Body body) {
  {
    SCOPED_TRACE("fp32");
    body.template operator()<float>();
  }
  {
    SCOPED_TRACE("bf16");
    body.template operator()<Bf16>();
  }
}

}  // namespace gantry::kernels::testing
