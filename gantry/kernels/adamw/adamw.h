#pragma once
// AdamW over flat buffers: every state is read and written once a step (Loshchilov and Hutter 2019, algorithm 2).
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gantry::kernels {

struct AdamwParameters {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double gradient_scale = 1.0;  ///< multiplies every gradient: the clipping coefficient
  std::int64_t step = 1;        ///< 1 at the first update
};

/// Flat fp32 [n] weight, gradient, first and second moments; updates weight and moments in place.
void adamw_(const at::Tensor& weight, const at::Tensor& gradient, const at::Tensor& first, const at::Tensor& second,
            const AdamwParameters& parameters);

/// bf16 weight [n] whose fp32 master is split into (bf16 weight, int16 remainder), exactly: 4 bytes a parameter hold
/// both. gradient is bf16 or fp32, moments fp32.
void adamw_split_(const at::Tensor& weight, const at::Tensor& remainder, const at::Tensor& gradient,
                  const at::Tensor& first, const at::Tensor& second, const AdamwParameters& parameters);

/// fp32 [n] -> {bf16 [n], int16 [n]} and back, exactly (NaN payloads aside).
std::pair<at::Tensor, at::Tensor> split_master(const at::Tensor& master);
at::Tensor join_master(const at::Tensor& weight, const at::Tensor& remainder);

/// Sum of squares of a flat fp32 or bf16 tensor, in fp64. The same for any timing of threads.
double sum_of_squares(const at::Tensor& flat);

}  // namespace gantry::kernels
