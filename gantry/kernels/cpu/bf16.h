#pragma once
#include <cstdint>

namespace gantry::kernels {

/// Storage of a bfloat16 in raw kernels; layout-compatible with libtorch's.
struct Bf16 {
  std::uint16_t bits;
};

}  // namespace gantry::kernels
