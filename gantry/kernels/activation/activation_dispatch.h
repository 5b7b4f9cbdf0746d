#pragma once
// Tensor types to raw activation kernels; for the sources of operators.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <type_traits>

#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/common.h"

namespace gantry::kernels {

inline bool has_activation_kernel(const at::Tensor& x) {
  const auto type = x.scalar_type();
  return x.is_cpu() && x.layout() == at::kStrided &&
         (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble);
}

/// Calls body.template operator()<Raw>() with Raw = float, Bf16, Fp16 or double.
template <class Body>
void dispatch_activation(at::ScalarType type, Body&& body) {
  if (type == at::kDouble) return body.template operator()<double>();
  if (type == at::kHalf) return body.template operator()<Fp16>();
  dispatch_raw(type, body);
}

template <class Raw>
auto activation_forward_kernel() {
  if constexpr (std::is_same_v<Raw, double>) {
    return &activation_forward_fp64;
  } else {
    return GANTRY_ISA_SELECT(activation_forward<Raw>);
  }
}

template <class Raw>
auto activation_backward_kernel() {
  if constexpr (std::is_same_v<Raw, double>) {
    return &activation_backward_fp64;
  } else {
    return GANTRY_ISA_SELECT(activation_backward<Raw>);
  }
}

template <class Raw>
auto activation_exact_backward_kernel() {
  if constexpr (std::is_same_v<Raw, double>) {
    return &activation_exact_backward_fp64;
  } else {
    return GANTRY_ISA_SELECT(activation_exact_backward<Raw>);
  }
}

/// Splits elements [0, n) between threads at whole blocks.
template <class Kernel, class Args>
void for_blocks(std::int64_t n, Kernel kernel, const Args& args) {
  const std::int64_t blocks = (n + kActivationBlock - 1) / kActivationBlock;
  at::parallel_for(0, blocks, 16384 / kActivationBlock, [&](std::int64_t begin, std::int64_t end) {
    kernel(args, begin * kActivationBlock, std::min(n, end * kActivationBlock));
  });
}

}  // namespace gantry::kernels
