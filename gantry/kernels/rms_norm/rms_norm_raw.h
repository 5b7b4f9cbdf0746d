#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps), all in fp32, one rounding at the end. With a
/// residual the input of the norm is x + residual, which is also written to `sum`.
template <class T>
struct RmsNormForwardArgs {
  const T* x;         ///< [rows, n]
  const T* residual;  ///< [rows, n] or null
  T* sum;             ///< [rows, n]; x + residual, or null without a residual
  const T* weight;    ///< [n]
  T* y;               ///< [rows, n]
  float* rstd;        ///< [rows] or null
  std::int64_t n;
  float eps;
};

template <class T>
struct RmsNormBackwardArgs {
  const T* dy;        ///< [rows, n]
  const T* x;         ///< [rows, n], the input of the norm (with a residual: the sum)
  const float* rstd;  ///< [rows]
  const T* weight;    ///< [n]
  const T* dsum;      ///< [rows, n] gradient that reaches the sum directly, added to dx; or null
  T* dx;              ///< [rows, n]
  float* dweight;     ///< [n] accumulated by this call, private to the calling thread
  std::int64_t n;
};

GANTRY_ISA_DECLARE(
    /// Rows [begin, end).
    template <class T> void rms_norm_forward(const RmsNormForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
    template <class T>
    void rms_norm_backward(const RmsNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
