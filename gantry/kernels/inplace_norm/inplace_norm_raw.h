#pragma once
// In-place layer and RMS norm: the backward pass recovers the normalised input xhat from the output y = weight * xhat +
// bias (Tempo, NeurIPS 2022, section 3), except in columns where that is ill-conditioned, whose xhat is kept beside.
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// v = residual + dropout(x), xhat = (v - mean) * rstd, y = xhat * weight + bias, over the last axis; fp32 inside.
template <class T>
struct InplaceNormForwardArgs {
  const T* x;                        ///< [rows, n]
  const T* residual;                 ///< [rows, n] or null
  T* sum;                            ///< [rows, n] receives v, which is then rounded before it is normalised; or null
  const float* weight;               ///< [n]
  const float* bias;                 ///< [n]
  T* y;                              ///< [rows, n]
  float* rstd;                       ///< [rows]; null: see `carrier`
  const std::int64_t* side_columns;  ///< [side_count], null without
  T* side;                           ///< [rows, side_count] receives xhat of these columns
  T* normal;                         ///< [rows, n] receives xhat, or null
  std::int64_t side_count;
  std::int64_t n;
  float eps;
  DropoutRule dropout;       ///< of x [rows, n]; threshold 0 for none
  std::int64_t carrier = 0;  ///< T = float without `rstd`: it goes into the last bits of y from this column on
                             ///< (cpu/last_bits.h), the usual one being that of deviation 0
};

template <class T>
struct InplaceNormBackwardArgs {
  const T* dy;                       ///< [rows, n]
  const T* y;                        ///< [rows, n], the output of the norm; unused with `normal`
  const T* normal;                   ///< [rows, n] xhat, or null
  const float* rstd;                 ///< [rows]; null: in the last bits of y
  const float* weight;               ///< [n]
  const float* bias;                 ///< [n]
  const float* inverse;              ///< [n] 1 / weight, and 0 in side columns
  const std::int64_t* side_columns;  ///< [side_count]
  const T* side;                     ///< [rows, side_count]
  std::int64_t side_count;
  const T* dsum;   ///< [rows, n] added to the gradient of v, or null
  T* dresidual;    ///< [rows, n] gradient of v, or null
  T* dx;           ///< [rows, n] gradient of x; differs from that of v by the dropout
  float* dweight;  ///< [n] accumulated, private to the calling thread
  float* dbias;    ///< [n] likewise
  std::int64_t n;
  DropoutRule dropout;
  std::int64_t carrier = 0;  ///< as in forward, read without `rstd`
  float eps = 0;             ///< likewise
};

GANTRY_ISA_DECLARE(template <class T, bool kCentred> void inplace_norm_forward(const InplaceNormForwardArgs<T>& args,
                                                                               std::int64_t begin, std::int64_t end);
                   template <class T, bool kCentred> void inplace_norm_backward(const InplaceNormBackwardArgs<T>& args,
                                                                                std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
