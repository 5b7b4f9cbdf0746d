#pragma once
// Batch normalisation and an invertible activation in one operator that keeps its output instead of its input
// (Rota Bulò et al., "In-place activated batch norm", CVPR 2018, section 3; the sign of the weight is kept, and
// channels that cannot be inverted well are treated as in inplace_norm.h).
#include <ATen/core/Tensor.h>

namespace gantry::kernels {

struct BatchNormActOptions {
  bool training = true;   ///< statistics of the batch, and running ones are updated; false: running ones
  double momentum = 0.1;  ///< of the running statistics
  double eps = 1e-5;
  double negative_slope = 0.01;  ///< of the leaky ReLU, positive; 1 is the identity
};

/// x [batch, channels, ...] -> leaky_relu(batch_norm(x)); weight and bias [channels] or undefined; running statistics
/// [channels], undefined in training if none are wanted. The forward pass is torch's. Kept for backward: the output
/// (which the next operator keeps anyway), 4 bytes a channel, and the normalised input of channels that are not
/// inverted. Differentiable once. InputError where shapes do not fit, for a slope that is not positive, and for
/// training on one value a channel.
at::Tensor batch_norm_act(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& running_mean, const at::Tensor& running_var,
                          const BatchNormActOptions& options);

}  // namespace gantry::kernels
