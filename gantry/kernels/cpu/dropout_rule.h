#pragma once
// Which elements a dropout drops: a function of a seed, a stream and the element's position alone, so that forward,
// backward, any tiling and any number of threads agree. cpu/philox.h evaluates it.
//
// Element e takes bits 16 (e mod 8) and up of the 128 bits of Philox4x32-10 with key = seed and counter = (e / 8,
// stream), low words first, and is dropped if these 16 bits are below the threshold.
#include <cmath>
#include <cstdint>

namespace gantry::kernels {

inline constexpr std::uint32_t kDropAll = 65536;

struct DropoutRule {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;     ///< one per layer, operator and step: equal streams give equal masks
  std::uint32_t threshold = 0;  ///< 0 (keep all) to kDropAll
};

/// round(p 65536) for p in [0, 1].
inline std::uint32_t dropout_threshold(double p) { return static_cast<std::uint32_t>(std::lround(p * kDropAll)); }

/// What kept elements are multiplied with: one over the exact rate of kept elements, 1 - threshold / 65536, so that the
/// mean is unchanged; 0 where all are dropped.
inline float keep_scale(std::uint32_t threshold) {
  return threshold >= kDropAll ? 0.0f : static_cast<float>(65536.0 / (65536.0 - threshold));
}

}  // namespace gantry::kernels
