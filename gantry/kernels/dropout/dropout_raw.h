#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

template <class T>
struct DropoutArgs {
  const T* x;
  T* y;                 ///< x * keep / (1 - p); may be x
  std::uint8_t* bits;   ///< keep bits of all elements, LSB first; null to draw them again
  bool bits_are_given;  ///< `bits` are read (backward), not written (forward)
  std::int64_t count;   ///< elements
  DropoutRule rule;
};

/// Elements of one block: ranges of `dropout` are in blocks, so that no two threads share a byte of `bits`.
inline constexpr std::int64_t kDropoutBlock = 1024;

GANTRY_ISA_DECLARE(
    /// Blocks [begin, end) of kDropoutBlock elements, the last of which may be shorter.
    template <class T> void dropout_apply(const DropoutArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
