#pragma once
// Stands in for CUDA's <cuda_fp16.h>: the conversions.
#include "gantry/base/half.h"

struct __half {
  unsigned short bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline float __half2float(__half x) { return gantry::base::fp16_to_float(x.bits); }
inline __half __float2half_rn(float x) { return {gantry::base::float_to_fp16(x)}; }
