#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

template <class T>
struct CrossEntropyArgs {
  T* logits;                   ///< [rows, vocab]; overwritten by the gradient where `scale` is not 0
  const std::int64_t* labels;  ///< [rows]; negative: ignored, its gradient is zero
  float* losses;               ///< [rows]; -log softmax(logits)[label], 0 for ignored rows
  std::int64_t vocab;
  float scale;                 ///< gradient = (softmax - onehot) * scale; 0: leave the logits alone
};

GANTRY_ISA_DECLARE(template <class T> void cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t begin,
                                                         std::int64_t end);)

}  // namespace gantry::kernels
