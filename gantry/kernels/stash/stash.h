#pragma once
// Tensors kept for the backward pass in about a byte an element. Lossy: for operands of a weight gradient, where the
// errors of many rows average out.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "gantry/kernels/stash/stash_raw.h"

namespace gantry::kernels {

/// How an operator keeps an input that its backward pass needs.
enum class KeepInput : std::int32_t {
  kTensor,  ///< as it is
  kInt8,    ///< as stash() packs it
};

/// A tensor as int8 multiples of one scale per kStashGroup (64) elements in row-major order; groups run across rows.
///
/// Error: at most half a scale an element, where scale <= 1.008 (largest magnitude of the group) / 127 or 2^-126; for
/// normally distributed elements about 0.6 % (root mean square), plus the rounding to `type`. A group with a NaN or an
/// infinity comes back as NaN altogether. fp64 passes through fp32: magnitudes above 3.4e38 count as infinite.
struct Stashed {
  at::Tensor values;  ///< int8 [n]
  at::Tensor scales;  ///< bf16 [ceil(n / 64)]
  std::vector<std::int64_t> sizes;
  at::ScalarType type = at::kFloat;
};

/// Packs a floating-point tensor of any strides. fp32, bf16 and fp16 on the CPU by one kernel, other types through
/// fp32, other devices by ATen operators. No autograd. InputError for other types.
Stashed stash(const at::Tensor& x);

/// A new contiguous tensor of the original sizes and type.
at::Tensor unstash(const Stashed& stashed);

/// The same from ATen operators: the oracle, and what runs on other devices.
Stashed stash_reference(const at::Tensor& x);
at::Tensor unstash_reference(const Stashed& stashed);

/// Bytes of both tensors for n elements: n + 2 ceil(n / 64).
constexpr std::int64_t stashed_bytes(std::int64_t n) { return n + 2 * stash_groups(n); }

}  // namespace gantry::kernels
