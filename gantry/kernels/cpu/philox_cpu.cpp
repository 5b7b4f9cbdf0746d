#include "gantry/kernels/cpu/philox.h"
#include "gantry/kernels/cpu/philox_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

void dropout_keep_bits(const DropoutRule& rule, std::uint64_t first, std::int64_t count, std::uint8_t* keep) {
  philox_keep_bits(rule, first, count, keep);
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
