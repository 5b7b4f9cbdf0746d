#pragma once
// Raw CPU kernels are compiled once per instruction set, each time inside another namespace; this header declares them
// in all namespaces and picks the one that base::isa() names.
//
//   GANTRY_ISA_DECLARE(template <class T> void scale(const ScaleArgs<T>& args, std::int64_t begin, std::int64_t end);)
//   GANTRY_ISA_SELECT(scale<float>)(args, begin, end);
//
// Kernels of products with bf16 operands (*_bf16_cpu.cpp) exist for avx512_bf16 and amx only: GANTRY_BF16_ISA_DECLARE,
// and GANTRY_BF16_ISA_SELECT, which is null where base::isa() has no such products.
#include "gantry/base/isa.h"

#if defined(__x86_64__)
#define GANTRY_ISA_DECLARE(...) \
  namespace scalar {            \
  __VA_ARGS__                   \
  }                             \
  namespace avx2 {              \
  __VA_ARGS__                   \
  }                             \
  namespace avx512 {            \
  __VA_ARGS__                   \
  }                             \
  namespace avx512_bf16 {       \
  __VA_ARGS__                   \
  }
#define GANTRY_ISA_SELECT(...)                                                                            \
  ::gantry::kernels::internal::select_isa(&scalar::__VA_ARGS__, &avx2::__VA_ARGS__, &avx512::__VA_ARGS__, \
                                          &avx512_bf16::__VA_ARGS__)
#define GANTRY_BF16_ISA_DECLARE(...) \
  namespace avx512_bf16 {            \
  __VA_ARGS__                        \
  }                                  \
  namespace amx {                    \
  __VA_ARGS__                        \
  }
#define GANTRY_BF16_ISA_SELECT(...) \
  ::gantry::kernels::internal::select_bf16_isa(&avx512_bf16::__VA_ARGS__, &amx::__VA_ARGS__)
#else
#define GANTRY_ISA_DECLARE(...) \
  namespace scalar {            \
  __VA_ARGS__                   \
  }
#define GANTRY_ISA_SELECT(...) (&scalar::__VA_ARGS__)
#define GANTRY_BF16_ISA_DECLARE(...) \
  namespace scalar {                 \
  __VA_ARGS__                        \
  }
#define GANTRY_BF16_ISA_SELECT(...) (static_cast<decltype(&scalar::__VA_ARGS__)>(nullptr))
#endif

namespace gantry::kernels::internal {

template <class Function>
Function select_isa(Function scalar, Function avx2, Function avx512, Function avx512_bf16) {
  switch (base::isa()) {
    case base::Isa::kAvx2: return avx2;
    case base::Isa::kAvx512: return avx512;
    case base::Isa::kAvx512Bf16:
    case base::Isa::kAmx: return avx512_bf16;
    case base::Isa::kScalar: break;
  }
  return scalar;
}

template <class Function>
Function select_bf16_isa(Function avx512_bf16, Function amx) {
  if (base::isa() < base::Isa::kAvx512Bf16) return nullptr;
  return base::isa() == base::Isa::kAmx ? amx : avx512_bf16;
}

}  // namespace gantry::kernels::internal
