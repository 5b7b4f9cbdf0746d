#pragma once
// Layer and RMS norm that keep their output, which the next operator keeps anyway, instead of their input (Tempo,
// NeurIPS 2022, section 3). Backward recovers the normalised input from y = weight * xhat + bias.
//
// Kept for backward: y (no bytes of its own where the next operator keeps it too), 1 / deviation (fp32, 4 bytes a row),
// and for columns that cannot be inverted well the normalised input itself, in the type of x. Which ones they are is
// found again from weight and bias. More than an eighth of such columns: the normalised input of all instead of y.
//
// A column is inverted unless weight = 0, its products underflow, or |bias / weight| exceeds inversion_limit: rounding
// of y costs xhat an absolute error of one rounding times max(|xhat|, |bias / weight|).
//
// Weight and bias must not change between forward and backward: torch's version counters then throw. The same holds for
// y. Second derivatives throw. On other devices, and for fp64 and fp16, compositions of ATen operators do the same.
#include <ATen/core/Tensor.h>

#include <utility>

#include "gantry/kernels/cpu/dropout_rule.h"

namespace gantry::kernels {

enum class NormKind { kLayer, kRms };

enum class NormKeep {
  kOutput,       ///< as above
  kOutputAlone,  ///< as above, and 1 / deviation takes no bytes: it lies in the last bits of y, where that is possible
  kInt8,         ///< instead of y and the columns, the normalised input as stash() packs it. Lossy.
};

// kOutputAlone: 32 neighbouring columns carry 1 / deviation, the first ones that are all inverted and whose |bias /
// weight| is at most 2^5. Their y moves by at most one ulp (cpu/last_bits.h), and with it xhat by 2^-23 max(|xhat|,
// |bias / weight|), which stays below the error of a column at inversion_limit. A row whose deviation is 0 keeps its
// zeros; where another one gives a zero in these columns, it may become 1.2e-38. Only on CPUs and in fp32, and if there
// are 32 such columns; else, without gradients, and in the sum of dropout_add_norm, nothing changes.

/// Largest |bias / weight| of a column that is inverted: 2^7 for fp32 (error of xhat up to 8e-6), 2 for fp16 and bf16
/// (error of the weight's gradient up to about twice that of its rounding), 2^20 for fp64.
double inversion_limit(at::ScalarType type);

/// x [..., n] -> [..., n]; weight and bias [n] of any floating-point type, or undefined for ones and zeros. fp32
/// inside. Differentiable once.
at::Tensor layer_norm_inplace(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps,
                              NormKeep keep = NormKeep::kOutput);
at::Tensor rms_norm_inplace(const at::Tensor& x, const at::Tensor& weight, double eps,
                            NormKeep keep = NormKeep::kOutput);

struct DropoutAddNormOptions {
  NormKind norm = NormKind::kLayer;
  double eps = 1e-5;
  DropoutRule dropout = {};  ///< of x, from draw_dropout; the default drops nothing
  bool return_sum = false;   ///< the residual stream goes on behind the norm (pre-norm blocks)
  NormKeep keep = NormKeep::kOutput;
};

/// {residual + dropout(x), its norm} in one pass that keeps neither mask nor sum; the first is undefined unless
/// `return_sum` is set. bias must be undefined for NormKind::kRms. Differentiable once.
std::pair<at::Tensor, at::Tensor> dropout_add_norm(const at::Tensor& x, const at::Tensor& residual,
                                                   const at::Tensor& weight, const at::Tensor& bias,
                                                   const DropoutAddNormOptions& options);

/// The same from ATen operators with torch's own derivative; the oracle.
std::pair<at::Tensor, at::Tensor> dropout_add_norm_reference(const at::Tensor& x, const at::Tensor& residual,
                                                             const at::Tensor& weight, const at::Tensor& bias,
                                                             const DropoutAddNormOptions& options);

}  // namespace gantry::kernels
