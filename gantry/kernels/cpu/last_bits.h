#pragma once
// One float in the last mantissa bits of 32 others: what an operator keeps a row without bytes of its own, where it
// keeps the row anyway. As the activation's side flag (activation/activation.h), 32 at a time.
//
// An element moves by at most one ulp, 2^-23 of its value. A zero or denormal element that gets a 1 becomes 1.2e-38 of
// its sign, the number behind the smallest normal one, so that no denormals are made. Infinities and NaN stay as they
// are; a row with one of them reads as NaN.
//
// Torch-free. Only files named *_cpu.cpp call the functions: always inlined, they take the instruction set of each.
#include <cstdint>
#include <cstring>

namespace gantry::kernels {

inline constexpr std::int64_t kLastBitsWidth = 32;  ///< elements of a row that carry a float

namespace internal {

// Sixteen elements; never an argument or a result, so that files of any instruction set may include this.
typedef std::uint32_t LastBitsU __attribute__((vector_size(64)));
typedef std::int32_t LastBitsI __attribute__((vector_size(64)));
typedef std::uint32_t LastBitsHalf __attribute__((vector_size(32)));
typedef std::uint32_t LastBitsQuarter __attribute__((vector_size(16)));

inline constexpr std::uint32_t kSignBit = 0x80000000u, kMagnitudeBits = 0x7fffffffu, kSmallestNormalBits = 0x00800000u;
inline constexpr std::int32_t kInfinityBits = 0x7f800000;
inline constexpr LastBitsU kLastBitsShifts[2] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                                 {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}};

#define GANTRY_LAST_BITS_INLINE inline __attribute__((always_inline))

/// The bitwise or of the sixteen elements at `from`.
GANTRY_LAST_BITS_INLINE std::uint32_t or_of_elements(const LastBitsU& from) {
  const LastBitsHalf half = __builtin_shufflevector(from, from, 0, 1, 2, 3, 4, 5, 6, 7) |
                            __builtin_shufflevector(from, from, 8, 9, 10, 11, 12, 13, 14, 15);
  const LastBitsQuarter quarter =
      __builtin_shufflevector(half, half, 0, 1, 2, 3) | __builtin_shufflevector(half, half, 4, 5, 6, 7);
  return (quarter[0] | quarter[1]) | (quarter[2] | quarter[3]);
}

}  // namespace internal

/// Bit i of `value` becomes the last bit of row[i], i < 32. `usual` takes 32 zeros, so that a row of zeros whose value
/// it is stays one; 0 is written as -0 where it is not the usual one.
GANTRY_LAST_BITS_INLINE void write_last_bits(float* row, float value, float usual) {
  using namespace internal;
  std::uint32_t number;
  std::memcpy(&number, &value, sizeof(number));
  number = value == usual ? 0 : (number == 0 ? kSignBit : number);
  for (int part = 0; part < 2; ++part) {
    LastBitsU bits;
    std::memcpy(&bits, row + 16 * part, sizeof(bits));
    const LastBitsU bit = number >> kLastBitsShifts[part] & 1u;
    const LastBitsI magnitude = reinterpret_cast<LastBitsI>(bits & kMagnitudeBits);
    // Zeros and denormals take the smallest normal number for a 1.
    const LastBitsU least = (bits & kSignBit) | kSmallestNormalBits;
    const LastBitsU from = (magnitude < static_cast<std::int32_t>(kSmallestNormalBits)) & (bit != 0) ? least : bits;
    const LastBitsU marked = (from & ~1u) | bit;
    bits = magnitude < kInfinityBits ? marked : bits;
    std::memcpy(row + 16 * part, &bits, sizeof(bits));
  }
}

/// What write_last_bits() wrote with the same `usual`.
GANTRY_LAST_BITS_INLINE float read_last_bits(const float* row, float usual) {
  using namespace internal;
  LastBitsU bits[2];
  std::memcpy(bits, row, sizeof(bits));
  const LastBitsU placed = (bits[0] & 1u) << kLastBitsShifts[0] | (bits[1] & 1u) << kLastBitsShifts[1];
  const LastBitsI odd = (reinterpret_cast<LastBitsI>(bits[0] & kMagnitudeBits) >= kInfinityBits) |
                        (reinterpret_cast<LastBitsI>(bits[1] & kMagnitudeBits) >= kInfinityBits);
  const std::uint32_t number = or_of_elements(placed);
  float value;
  std::memcpy(&value, &number, sizeof(value));
  if (number == 0) value = usual;
  return or_of_elements(reinterpret_cast<LastBitsU>(odd)) != 0 ? __builtin_nanf("") : value;
}

#undef GANTRY_LAST_BITS_INLINE

}  // namespace gantry::kernels
