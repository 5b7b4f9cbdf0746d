#pragma once
// Batch normalisation and leaky ReLU whose backward pass needs the output alone, on a GPU; the contract is that of
// batch_norm_act.h. Torch-free: pointers are device memory. The CPU version is made of torch's operators, so that the
// arguments are here instead of in a raw header.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "gantry/kernels/activation/activation_raw.h"  // Fp16
#include "gantry/kernels/cpu/bf16.h"

namespace gantry::kernels::cuda {

/// Of tensors [batch, channels, inner].
struct BatchNormActShape {
  std::int64_t batch, channels;
  std::int64_t inner;  ///< 1 for [batch, channels], height * width for images
};

/// xhat = (x - mean) * rstd by channel, y = xhat * weight + bias, z = y or, below 0, slope * y; fp32 inside: squares of
/// x - mean must not overflow.
template <class T>
struct BatchNormActForwardArgs {
  const T* x;
  const float* weight;                ///< [channels]
  const float* bias;                  ///< [channels]
  float* running_mean;                ///< [channels], null in training if none is wanted
  float* running_var;                 ///< [channels] likewise
  T* z;                               ///< may be x
  float* mean;                        ///< [channels] receives what is subtracted
  float* rstd;                        ///< [channels]
  T* normal;                          ///< [batch, channels, inner] receives xhat, or null
  const std::int64_t* side_channels;  ///< [side_count], ascending; null without
  T* side;                            ///< [batch, side_count, inner] receives xhat of these channels
  std::int64_t side_count;
  BatchNormActShape shape;
  bool training;   ///< statistics of the batch, and running ones are updated; false: running ones
  float momentum;  ///< of the running statistics
  float eps;
  float slope;  ///< positive; 1 is the identity
};

template <class T>
struct BatchNormActBackwardArgs {
  const T* dz;
  const T* z;                         ///< the output
  const T* normal;                    ///< [batch, channels, inner] xhat, or null
  const float* rstd;                  ///< [channels]
  const float* weight;                ///< [channels]
  const float* bias;                  ///< [channels]
  const float* inverse;               ///< [channels] 1 / weight, unused in side channels and with `normal`
  const std::int64_t* side_channels;  ///< [side_count], ascending
  const T* side;                      ///< [batch, side_count, inner]
  std::int64_t side_count;
  T* dx;           ///< may be dz or z
  float* dweight;  ///< [channels] overwritten
  float* dbias;    ///< [channels] overwritten
  BatchNormActShape shape;
  bool training;
  float slope;
};

/// Elements of the working space `partial` of both passes. It depends on the shape alone, not on the GPU.
std::int64_t batch_norm_act_partial(const BatchNormActShape& shape);

/// T is float, Bf16 or Fp16. They run on the caller's device and stream and wait for nothing; the launch's error comes
/// back, and cudaErrorInvalidValue for a slope that is not positive, for training on one value a channel, and for
/// statistics that are missing. Without elements the forward pass writes nothing.
template <class T>
cudaError_t batch_norm_act_forward(const BatchNormActForwardArgs<T>& args, float* partial, cudaStream_t stream);
template <class T>
cudaError_t batch_norm_act_backward(const BatchNormActBackwardArgs<T>& args, float* partial, cudaStream_t stream);

}  // namespace gantry::kernels::cuda
