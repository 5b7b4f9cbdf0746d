#pragma once
// Groups of 64 elements as int8 multiples of one bf16 scale. Torch-free.
#include <cstdint>

#include "gantry/kernels/activation/activation_raw.h"  // Fp16
#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

inline constexpr std::int64_t kStashGroup = 64;

constexpr std::int64_t stash_groups(std::int64_t n) { return (n + kStashGroup - 1) / kStashGroup; }

template <class T>
struct StashArgs {
  const T* x;           ///< [n]
  std::int8_t* values;  ///< [n]
  Bf16* scales;         ///< [stash_groups(n)]
  std::int64_t n;
};

template <class T>
struct UnstashArgs {
  const std::int8_t* values;
  const Bf16* scales;
  T* x;
  std::int64_t n;
};

/// Groups [begin, end); T is float, Bf16 or Fp16.
///
/// scale = largest magnitude / 127 rounded up to bf16, at least 2^-126; value = x / scale rounded to nearest, within
/// [-127, 127]. A group that is not finite has the scale NaN. unstash limits value * scale to T's finite range, which
/// the product of rounded factors can leave by half a scale.
GANTRY_ISA_DECLARE(template <class T> void stash(const StashArgs<T>& args, std::int64_t begin, std::int64_t end);
                   template <class T> void unstash(const UnstashArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
