#pragma once
// Blocks of 16 x 16 elements of 32 bits, turned in registers. Only *_cpu.cpp files include it.
#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

/// Element j of x[i] goes to element i of x[j]. Pairs of vectors, interleaved: one element, then two at a time within
/// 128-bit lanes; then whole lanes.
GANTRY_INLINE void transpose(F32x16 (&x)[kLanes]) {
  F32x16 y[kLanes];
  for (int i = 0; i < kLanes; i += 2) {
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
  for (int i = 0; i < kLanes; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const F32x16 p = y[i + j], q = y[i + j + 2];
      x[i + 2 * j] = __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      x[i + 2 * j + 1] = __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
  }
  // x[4 g + c] now has, in its lane l, column 4 l + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    for (int h = 0; h < 2; ++h) {
      const F32x16 p = x[8 * h + c], q = x[8 * h + 4 + c];
      y[4 * h + c] = __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      y[8 + 4 * h + c] = __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
  }
  for (int c = 0; c < 4; ++c) {
    for (int odd = 0; odd < 2; ++odd) {
      const F32x16 p = y[8 * odd + c], q = y[8 * odd + 4 + c];
      x[4 * odd + c] = __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      x[8 + 4 * odd + c] = __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
