#pragma once
// The instruction set that raw CPU kernels use: chosen once, latched, and overridable by GANTRY_ISA for tests.
#include <string_view>

namespace gantry::base {

enum class Isa {
  kScalar,      ///< plain C++
  kAvx2,        ///< AVX2 + FMA + F16C
  kAvx512,      ///< AVX-512 F/BW/VL/DQ
  kAvx512Bf16,  ///< kAvx512 + AVX512_BF16
  kAmx,         ///< kAvx512Bf16 + AMX tiles and their bf16 product; few kernels have it, the others take kAvx512Bf16
};

/// The best one this processor runs and the system lets this process use: Linux is asked for the state of AMX at the
/// first call, for all threads of the process.
Isa best_isa();
/// The one in use: GANTRY_ISA (scalar, avx2, avx512, avx512_bf16, amx) or best_isa(). Throws InputError when the
/// override is unknown or not supported by this processor. Latched at the first call.
Isa isa();
/// Forgets the latched choice, so that a test can set GANTRY_ISA and ask again.
void reset_isa_for_testing();
std::string_view isa_name(Isa isa);

}  // namespace gantry::base
