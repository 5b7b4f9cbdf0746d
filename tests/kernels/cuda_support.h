#pragma once
// Helpers of the CUDA kernels' tests, which run them in tests/kernels/cuda_emulation.
#include <cuda_runtime.h>

#include "tests/kernels/raw_support.h"

namespace gantry::kernels::testing {

/// Runs body() with threads and blocks in several orders: a kernel that lacks a barrier gives different results.
template <class Body>
void for_orders(Body body) {
  using cuda_emulation::Order;
  for (const Order order : {Order::kForward, Order::kBackward, Order::kShuffled}) {
    SCOPED_TRACE(::testing::Message() << "order of threads " << static_cast<int>(order));
    cuda_emulation::set_order(order);
    body();
  }
  cuda_emulation::set_order(Order::kForward);
}

/// Runs body.template operator()<T>() for fp32, bf16 and fp16, each under a trace.
template <class Body>
void for_all_types(Body body) {
  for_both_types(body);
  SCOPED_TRACE("fp16");
  body.template operator()<Fp16>();
}

/// Elementwise, where NaN and infinities have to match.
template <class T>
void expect_same(const Guarded<T>& actual, const Guarded<T>& expected, double relative, double absolute) {
  ASSERT_EQ(actual.size(), expected.size());
  EXPECT_TRUE(actual.intact()) << "wrote outside its range";
  for (std::int64_t i = 0; i < actual.size(); ++i) {
    const double got = value_of(actual.data()[i]), want = value_of(expected.data()[i]);
    if (std::isnan(want) || std::isinf(want)) {
      ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << i << ": " << got << ", expected " << want;
    } else {
      ASSERT_NEAR(got, want, relative * std::abs(want) + absolute) << "element " << i;
    }
  }
}

/// Half a unit in the last place of a number near one.
template <class T>
constexpr double kRounding = std::is_same_v<T, float>  ? 0x1p-24
                             : std::is_same_v<T, Bf16> ? 0x1p-9
                                                       : 0x1p-12;

}  // namespace gantry::kernels::testing
