#pragma once
// Reading memory as fast as one thread can: the yardstick of kernels that stream weights.
#include <cstdint>

#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

GANTRY_ISA_DECLARE(
    /// Sum of fp32 elements [begin, end) of `x`; four independent sums and a prefetch keep many cache lines in flight.
    float stream_sum(const float* x, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
