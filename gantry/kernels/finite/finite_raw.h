#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

GANTRY_ISA_DECLARE(
    /// True when no element of [begin, end) is NaN or infinite.
    template <class T> bool all_finite(const T* x, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
