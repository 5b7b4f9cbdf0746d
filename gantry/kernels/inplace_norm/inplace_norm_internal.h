#pragma once
// Shared by the files of this folder.
#include <ATen/core/Tensor.h>

#include "gantry/kernels/inplace_norm/inplace_norm.h"

namespace gantry::kernels::internal {

inline at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Weight and bias as the kernels take them, and which columns are inverted.
struct NormParameters {
  at::Tensor weight, bias;    ///< [n], wide
  at::Tensor inverse;         ///< [n], wide: 1 / weight, and 0 in `columns`
  at::Tensor columns;         ///< int64 [k], those that are not inverted
  bool keep_normal = false;   ///< more than an eighth of them: keep xhat of all, and `columns` is empty
  std::int64_t carrier = -1;  ///< first of the columns whose y carries 1 / deviation; -1: it is a tensor
};

/// For n columns (or channels) of x; `columns` are those that fail the test of inplace_norm.h for its type.
NormParameters norm_parameters(const at::Tensor& x, std::int64_t n, const at::Tensor& weight, const at::Tensor& bias);

/// The `carrier` that NormKeep::kOutputAlone takes for x of this type and device, or -1.
std::int64_t carrier_columns(const at::Tensor& x, const NormParameters& parameters);

/// [n], wide: 1 / weight, and 0 in `columns`.
at::Tensor inverse_weight(const NormParameters& parameters);

/// What forward makes. Shapes of y, sum and normal: those of x; side: [rows, k]. rstd is undefined where y carries it.
struct NormForward {
  at::Tensor y, sum, rstd, side, normal;
};

/// What backward starts from: gradients of y and sum (undefined where unused), and what forward kept.
struct NormSaved {
  at::Tensor dy, dsum, y, rstd, side, normal;
};

/// Gradients; weight and bias in the wide type. `dresidual` is undefined where it equals dx.
struct NormGradients {
  at::Tensor dx, dresidual, dweight, dbias;
};

/// x and residual (or undefined) are contiguous. `keeps`: side columns and normalised input are wanted.
NormForward norm_forward(const at::Tensor& x, const at::Tensor& residual, const NormParameters& parameters,
                         const DropoutAddNormOptions& options, bool keeps);
/// Every tensor is contiguous; `side` has no columns where there are none.
NormGradients norm_backward(const NormSaved& saved, const NormParameters& parameters,
                            const DropoutAddNormOptions& options);

/// The same from ATen operators, for every device and type.
NormForward norm_forward_aten(const at::Tensor& x, const at::Tensor& residual, const NormParameters& parameters,
                              const DropoutAddNormOptions& options);
NormGradients norm_backward_aten(const NormSaved& saved, const NormParameters& parameters,
                                 const DropoutAddNormOptions& options);

}  // namespace gantry::kernels::internal
