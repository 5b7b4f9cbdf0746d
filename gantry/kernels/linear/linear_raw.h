#pragma once
// Products of a few input rows with a weight matrix: the memory-bound case of decoding.
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// Most input rows that one call takes.
inline constexpr std::int64_t kMaxSmallRows = 8;

/// y[r, n] = sum_k x[r, k] w[n, k] + bias[n], fp32 accumulation.
template <class T>
struct SmallLinearArgs {
  const float* x;     ///< [rows, k] fp32, even elements of each row first, then the odd ones (see deinterleave)
  std::int64_t rows;  ///< 1 to kMaxSmallRows
  std::int64_t k;
  const T* w;     ///< [n, k], contiguous
  const T* bias;  ///< [n] or null
  T* y;           ///< [rows, stride]
  std::int64_t y_stride;
};

GANTRY_ISA_DECLARE(
    /// Output columns [begin, end).
    template <class T> void small_linear(const SmallLinearArgs<T>& args, std::int64_t begin, std::int64_t end);
    /// One row of k elements to the fp32 order that small_linear reads: for bf16 x[0], x[2], ... then x[1], x[3], ...
    /// (a 32-bit word of weights then splits by one shift and one mask); for fp32 unchanged.
    template <class T> void deinterleave(const T* x, std::int64_t k, float* to);)

}  // namespace gantry::kernels
