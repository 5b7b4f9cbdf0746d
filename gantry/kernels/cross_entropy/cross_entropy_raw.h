#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// With lse = log sum exp(logits), a row's loss is
///   lse - (1 - label_smoothing) logits[label] - label_smoothing mean(logits) + z_loss lse^2
/// and its gradient (1 + 2 z_loss lse) softmax(logits) - (1 - label_smoothing) onehot - label_smoothing / vocab.
template <class T>
struct CrossEntropyArgs {
  T* logits;                   ///< [rows, vocab]; overwritten by the gradient times `scale` where that is not 0
  const std::int64_t* labels;  ///< [rows], below vocab; negative: ignored, its gradient is zero
  float* losses;               ///< [rows]; 0 for ignored rows
  std::int64_t vocab;
  float scale;                ///< 0: leave the logits alone
  float label_smoothing = 0;  ///< 0 to 1
  float z_loss = 0;
};

GANTRY_ISA_DECLARE(template <class T>
                   void cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
