#pragma once
// What activations and their derivatives have to give at the ends of their range, for CPU and CUDA kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>

#include "tests/kernels/raw_support.h"

namespace gantry::kernels::testing {

template <class T>
inline constexpr double kHugeInput = std::is_same_v<T, Fp16> ? 6e4 : 3e38;

template <class T>
Doubles extreme_inputs() {
  constexpr double huge = kHugeInput<T>;
  return {std::nan(""), INFINITY, -INFINITY, 0.0, -0.0, huge, -huge, -100.0, -1e-30, 1e-30, -40.0, 30.0};
}

/// Outputs and derivatives at extreme_inputs(); `fit` is the error of the derivative in fp32.
template <class T>
void expect_extremes(const Doubles& values, const Doubles& slopes, double fit) {
  const Doubles inputs = extreme_inputs<T>();
  const double bar = fit + (std::is_same_v<T, float> ? 0 : 4.2e-3);
  EXPECT_TRUE(std::isnan(values[0]) && std::isnan(slopes[0]));
  EXPECT_TRUE(values[1] == INFINITY && slopes[1] == 1);
  EXPECT_TRUE(std::isnan(values[2]) && std::isnan(slopes[2]));
  for (const std::size_t zero : {3, 4, 8, 9}) {
    EXPECT_NEAR(values[zero], 0, 1e-30);
    EXPECT_NEAR(slopes[zero], 0.5, bar) << inputs[zero];
  }
  EXPECT_TRUE(values[5] == value_of(stored<T>(kHugeInput<T>)) && slopes[5] == 1);
  for (const std::size_t left : {6, 7, 10}) {
    EXPECT_NEAR(values[left], 0, 1e-15);
    EXPECT_NEAR(slopes[left], 0, bar) << inputs[left];
  }
  EXPECT_TRUE(values[11] == 30 && slopes[11] == 1);
}

}  // namespace gantry::kernels::testing
