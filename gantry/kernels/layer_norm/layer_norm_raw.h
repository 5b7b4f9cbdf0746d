#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// y = (x - mean) * rstd * weight + bias over the last axis, fp32 inside. With a residual the input of the norm is
/// x + residual, which is also written to `sum`.
template <class T>
struct LayerNormForwardArgs {
  const T* x;         ///< [rows, n]
  const T* residual;  ///< [rows, n] or null
  T* sum;             ///< [rows, n], or null without a residual
  const T* weight;    ///< [n]
  const T* bias;      ///< [n]
  T* y;               ///< [rows, n]
  float* mean;        ///< [rows] or null
  float* rstd;        ///< [rows] or null
  std::int64_t n;
  float eps;
};

template <class T>
struct LayerNormBackwardArgs {
  const T* dy;        ///< [rows, n]
  const T* x;         ///< [rows, n], the input of the norm
  const float* mean;  ///< [rows]
  const float* rstd;  ///< [rows]
  const T* weight;    ///< [n]
  const T* dsum;      ///< [rows, n] added to dx, or null
  T* dx;              ///< [rows, n]
  float* dweight;     ///< [n] accumulated, private to the calling thread
  float* dbias;       ///< [n] likewise
  std::int64_t n;
};

GANTRY_ISA_DECLARE(template <class T>
                   void layer_norm_forward(const LayerNormForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
                   template <class T> void layer_norm_backward(const LayerNormBackwardArgs<T>& args, std::int64_t begin,
                                                               std::int64_t end);)

}  // namespace gantry::kernels
