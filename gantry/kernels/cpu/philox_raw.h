#pragma once
// Keep bits of a dropout, for mask export and tests; kernels that drop use cpu/philox.h inside their loops.
#include <cstdint>

#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

GANTRY_ISA_DECLARE(
    /// Keep bits of elements [first, first + count), LSB first, into (count + 7) / 8 bytes; zero behind the last one.
    void dropout_keep_bits(const DropoutRule& rule, std::uint64_t first, std::int64_t count, std::uint8_t* keep);)

}  // namespace gantry::kernels
