#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// One step's numbers, shared by all elements. Method: Decoupled Weight Decay Regularization, Loshchilov and Hutter
/// 2019, algorithm 2, with bias correction.
struct AdamwStep {
  float learning_rate;
  float beta1;
  float beta2;
  float eps;
  float weight_decay;
  float bias_correction1;  ///< 1 - beta1^t
  float bias_correction2;  ///< 1 - beta2^t
  float gradient_scale;    ///< multiplies every gradient: the clipping coefficient
};

/// A flat range with fp32 weights.
struct AdamwArgs {
  float* weight;
  const float* gradient;
  float* first;   ///< m
  float* second;  ///< v
};

/// A flat range whose fp32 master weight is stored in two 16-bit halves: the bf16 weight that the model computes with
/// (master rounded half up) and a signed remainder. master bits = (bf16 << 16) + remainder, exactly.
template <class Gradient>
struct AdamwSplitArgs {
  Bf16* weight;
  std::int16_t* remainder;
  const Gradient* gradient;
  float* first;
  float* second;
};

GANTRY_ISA_DECLARE(void adamw(const AdamwArgs& args, const AdamwStep& step, std::int64_t begin, std::int64_t end);
                   template <class Gradient>
                   void adamw_split(const AdamwSplitArgs<Gradient>& args, const AdamwStep& step, std::int64_t begin,
                                    std::int64_t end);
                   /// Sum of squares of elements [begin, end), in fp64 over blocks.
                   template <class T> double sum_of_squares(const T* x, std::int64_t begin, std::int64_t end);
                   /// Splits fp32 masters into halves, and joins them again.
                   void split_master(const float* master, Bf16* weight, std::int16_t* remainder, std::int64_t begin,
                                     std::int64_t end);
                   void join_master(const Bf16* weight, const std::int16_t* remainder, float* master,
                                    std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
