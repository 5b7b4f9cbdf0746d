#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// Rotates heads in place: the first and second halves of a head are the pairs' members (Hugging Face order).
template <class T>
struct RopeArgs {
  T* x;                     ///< row r starts at x + r * row_stride, heads follow each other
  std::int64_t row_stride;  ///< elements
  std::int64_t heads;
  std::int64_t head_dim;          ///< even
  const std::int64_t* positions;  ///< [rows]
  const float* cosine;            ///< [positions, head_dim / 2]
  const float* sine;              ///< [positions, head_dim / 2]
  bool inverse;                   ///< rotate backwards: the gradient
};

GANTRY_ISA_DECLARE(template <class T> void rope(const RopeArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
