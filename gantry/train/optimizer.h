#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "gantry/train/flat_parameters.h"

namespace gantry::train {

struct AdamwOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  ///< global gradient norm above which gradients are scaled down; 0: never
};

struct StepResult {
  double gradient_norm;  ///< before clipping
  bool applied;          ///< false when the norm is not finite; nothing was changed then
};

/// AdamW on flat buffers (kernels/adamw). Moments are fp32.
class FlatAdamw {
 public:
  FlatAdamw(FlatParameters& parameters, const AdamwOptions& options);

  /// One update from parameters.gradients().
  StepResult step(double learning_rate);

  std::int64_t steps_taken() const { return steps_; }
  const at::Tensor& first() const { return first_; }
  const at::Tensor& second() const { return second_; }
  void restore(const at::Tensor& first, const at::Tensor& second, std::int64_t steps);

 private:
  FlatParameters& parameters_;
  AdamwOptions options_;
  at::Tensor first_, second_;  // [n] fp32
  std::int64_t steps_ = 0;
};

}  // namespace gantry::train
