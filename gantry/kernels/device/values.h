#pragma once
// The storage types of raw kernels as fp32 in registers, for CUDA kernels.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "gantry/kernels/activation/activation_raw.h"  // Fp16
#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/device/launch.h"

namespace gantry::kernels::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
__device__ inline float to_float(Fp16 x) { return __half2float(__ushort_as_half(x.bits)); }

/// Rounded to nearest, ties to even.
__device__ inline void put(float* to, float x) { *to = x; }
__device__ inline void put(Bf16* to, float x) { to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ inline void put(Fp16* to, float x) { to->bits = __half_as_ushort(__float2half_rn(x)); }

}  // namespace gantry::kernels::cuda
