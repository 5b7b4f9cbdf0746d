#pragma once
// cpu/dropout_rule.h on a GPU: the same bits for the same element.
#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/device/launch.h"

namespace gantry::kernels::cuda {

/// Keep bits of the eight elements from 8 block on, least significant first. Philox4x32-10: Salmon et al., Parallel
/// Random Numbers: As Easy as 1, 2, 3, SC 2011.
__device__ inline unsigned keep_byte(const DropoutRule& rule, std::uint64_t block) {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                        static_cast<std::uint32_t>(rule.stream), static_cast<std::uint32_t>(rule.stream >> 32)};
  std::uint32_t k0 = static_cast<std::uint32_t>(rule.seed), k1 = static_cast<std::uint32_t>(rule.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(0xd2511f53u, c[0]), low0 = 0xd2511f53u * c[0];
    const std::uint32_t high1 = __umulhi(0xcd9e8d57u, c[2]), low1 = 0xcd9e8d57u * c[2];
    c[0] = high1 ^ c[1] ^ k0, c[1] = low1, c[2] = high0 ^ c[3] ^ k1, c[3] = low0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    bits |= static_cast<unsigned>((c[i / 2] >> (16 * (i % 2)) & 0xffffu) >= rule.threshold) << i;
  }
  return bits;
}

/// What dropout multiplies an element with: `scale` or 0.
__device__ inline float keep_factor(unsigned byte, std::int64_t element, float scale) {
  return (byte >> (element % 8) & 1u) != 0 ? scale : 0.0f;
}

}  // namespace gantry::kernels::cuda
