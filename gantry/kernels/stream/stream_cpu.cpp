#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/stream/stream_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

float stream_sum(const float* x, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kStep = 4 * kLanes;
  constexpr std::int64_t kAhead = 1024;  // elements: 4 KiB
  F32x16 sums[4] = {};
  std::int64_t i = begin;
  for (; i + kStep <= end; i += kStep) {
    for (int part = 0; part < 4; ++part) {
      __builtin_prefetch(x + i + part * kLanes + kAhead);
      sums[part] += load(x + i + part * kLanes);
    }
  }
  float sum = reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < end; ++i) sum += x[i];
  return sum;
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
