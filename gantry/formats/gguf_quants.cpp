#include "gantry/formats/gguf_quants.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "gantry/base/check.h"
#include "gantry/base/half.h"
#include "gantry/base/threads.h"

namespace gantry::formats {
namespace {

constexpr std::int64_t kSmall = 32;   // elements of a Q4_0 .. Q8_0 block
constexpr std::int64_t kSuper = 256;  // elements of a K-quant block

std::uint16_t load_u16(const std::uint8_t* from) {
  std::uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

std::uint32_t load_u32(const std::uint8_t* from) {
  std::uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

float load_half(const std::uint8_t* from) { return base::fp16_to_float(load_u16(from)); }

void from_f32(const std::uint8_t* from, std::int64_t count, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
}

void from_f16(const std::uint8_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = load_half(from + 2 * i);
}

void from_bf16(const std::uint8_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = base::bf16_to_float(load_u16(from + 2 * i));
}

// Q4_0: half d; 16 bytes, element i in the low nibble of byte i, element i + 16 in the high one.
void from_q4_0(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 18, to += kSmall) {
    const float d = load_half(from);
    for (int i = 0; i < 16; ++i) {
      to[i] = static_cast<float>((from[2 + i] & 15) - 8) * d;
      to[i + 16] = static_cast<float>((from[2 + i] >> 4) - 8) * d;
    }
  }
}

// Q4_1: half d, half m; nibbles as in Q4_0.
void from_q4_1(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 20, to += kSmall) {
    const float d = load_half(from);
    const float m = load_half(from + 2);
    for (int i = 0; i < 16; ++i) {
      to[i] = static_cast<float>(from[4 + i] & 15) * d + m;
      to[i + 16] = static_cast<float>(from[4 + i] >> 4) * d + m;
    }
  }
}

// Q5_0: half d; 32 fifth bits, bit i for element i; nibbles as in Q4_0.
void from_q5_0(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 22, to += kSmall) {
    const float d = load_half(from);
    const std::uint32_t high = load_u32(from + 2);
    for (int i = 0; i < 16; ++i) {
      const auto low_half = static_cast<int>((from[6 + i] & 15u) | ((high >> i & 1u) << 4));
      const auto high_half = static_cast<int>((from[6 + i] >> 4) | ((high >> (i + 16) & 1u) << 4));
      to[i] = static_cast<float>(low_half - 16) * d;
      to[i + 16] = static_cast<float>(high_half - 16) * d;
    }
  }
}

// Q5_1: half d, half m; then as Q5_0.
void from_q5_1(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 24, to += kSmall) {
    const float d = load_half(from);
    const float m = load_half(from + 2);
    const std::uint32_t high = load_u32(from + 4);
    for (int i = 0; i < 16; ++i) {
      to[i] = static_cast<float>((from[8 + i] & 15u) | ((high >> i & 1u) << 4)) * d + m;
      to[i + 16] = static_cast<float>((from[8 + i] >> 4) | ((high >> (i + 16) & 1u) << 4)) * d + m;
    }
  }
}

// Q8_0: half d; 32 signed bytes.
void from_q8_0(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 34, to += kSmall) {
    const float d = load_half(from);
    for (int i = 0; i < kSmall; ++i) to[i] = static_cast<float>(static_cast<std::int8_t>(from[2 + i])) * d;
  }
}

struct ScaleAndMin {
  int scale;
  int min;
};

/// Pair `j` of the eight 6-bit (scale, min) pairs that Q4_K and Q5_K pack into 12 bytes: the first four lie in the low
/// six bits of bytes j and j + 4; of the others, bytes j + 4 hold the low nibbles and the spare top bits the rest.
ScaleAndMin unpack_scale(const std::uint8_t* packed, int j) {
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4};
}

// Q4_K: half d, half dmin, 12 bytes of scales; per 64 elements 32 bytes, low nibbles first.
void from_q4_k(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 144) {
    const float d = load_half(from);
    const float dmin = load_half(from + 2);
    for (int part = 0; part < 8; ++part, to += 32) {
      const auto [scale, min] = unpack_scale(from + 4, part);
      const float step = d * static_cast<float>(scale);
      const float base = dmin * static_cast<float>(min);
      const std::uint8_t* quants = from + 16 + part / 2 * 32;
      const int shift = part % 2 * 4;
      for (int i = 0; i < 32; ++i) to[i] = step * static_cast<float>(quants[i] >> shift & 15) - base;
    }
  }
}

// Q5_K: as Q4_K with 32 bytes of fifth bits in front of the nibbles; bit `part` of byte i belongs to element i of a
// part.
void from_q5_k(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 176) {
    const float d = load_half(from);
    const float dmin = load_half(from + 2);
    const std::uint8_t* high = from + 16;
    for (int part = 0; part < 8; ++part, to += 32) {
      const auto [scale, min] = unpack_scale(from + 4, part);
      const float step = d * static_cast<float>(scale);
      const float base = dmin * static_cast<float>(min);
      const std::uint8_t* quants = from + 48 + part / 2 * 32;
      const int shift = part % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int value = (quants[i] >> shift & 15) | (high[i] >> part & 1) << 4;
        to[i] = step * static_cast<float>(value) - base;
      }
    }
  }
}

// Q6_K: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, half d; in two halves of 128 elements.
void from_q6_k(const std::uint8_t* from, std::int64_t blocks, float* to) {
  for (; blocks > 0; --blocks, from += 210) {
    const float d = load_half(from + 208);
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* low = from + half * 64;
      const std::uint8_t* high = from + 128 + half * 32;
      const auto* scales = reinterpret_cast<const std::int8_t*>(from + 192 + half * 8);
      for (int part = 0; part < 4; ++part, to += 32) {
        const std::uint8_t* nibbles = low + part % 2 * 32;
        const int shift = part / 2 * 4;
        for (int i = 0; i < 32; ++i) {
          const int value = (nibbles[i] >> shift & 15) | (high[i] >> (2 * part) & 3) << 4;
          to[i] = d * static_cast<float>(scales[2 * part + i / 16]) * static_cast<float>(value - 32);
        }
      }
    }
  }
}

using T = GgufType;
constexpr std::array kTraits{
    GgufTypeTraits{T::kF32, "F32", 1, 4, from_f32},
    GgufTypeTraits{T::kF16, "F16", 1, 2, from_f16},
    GgufTypeTraits{T::kBF16, "BF16", 1, 2, from_bf16},
    GgufTypeTraits{T::kQ4_0, "Q4_0", kSmall, 18, from_q4_0},
    GgufTypeTraits{T::kQ4_1, "Q4_1", kSmall, 20, from_q4_1},
    GgufTypeTraits{T::kQ5_0, "Q5_0", kSmall, 22, from_q5_0},
    GgufTypeTraits{T::kQ5_1, "Q5_1", kSmall, 24, from_q5_1},
    GgufTypeTraits{T::kQ8_0, "Q8_0", kSmall, 34, from_q8_0},
    GgufTypeTraits{T::kQ4_K, "Q4_K", kSuper, 144, from_q4_k},
    GgufTypeTraits{T::kQ5_K, "Q5_K", kSuper, 176, from_q5_k},
    GgufTypeTraits{T::kQ6_K, "Q6_K", kSuper, 210, from_q6_k},
    GgufTypeTraits{T::kQ2_K, "Q2_K", kSuper, 84, nullptr},
    GgufTypeTraits{T::kQ3_K, "Q3_K", kSuper, 110, nullptr},
    GgufTypeTraits{T::kIQ2_XXS, "IQ2_XXS", kSuper, 66, nullptr},
    GgufTypeTraits{T::kIQ2_XS, "IQ2_XS", kSuper, 74, nullptr},
    GgufTypeTraits{T::kIQ3_XXS, "IQ3_XXS", kSuper, 98, nullptr},
    GgufTypeTraits{T::kIQ1_S, "IQ1_S", kSuper, 50, nullptr},
    GgufTypeTraits{T::kIQ4_NL, "IQ4_NL", kSmall, 18, nullptr},
    GgufTypeTraits{T::kIQ3_S, "IQ3_S", kSuper, 110, nullptr},
    GgufTypeTraits{T::kIQ2_S, "IQ2_S", kSuper, 82, nullptr},
    GgufTypeTraits{T::kIQ4_XS, "IQ4_XS", kSuper, 136, nullptr},
    GgufTypeTraits{T::kI8, "I8", 1, 1, nullptr},
    GgufTypeTraits{T::kI16, "I16", 1, 2, nullptr},
    GgufTypeTraits{T::kI32, "I32", 1, 4, nullptr},
    GgufTypeTraits{T::kI64, "I64", 1, 8, nullptr},
    GgufTypeTraits{T::kF64, "F64", 1, 8, nullptr},
    GgufTypeTraits{T::kIQ1_M, "IQ1_M", kSuper, 56, nullptr},
    GgufTypeTraits{T::kTQ1_0, "TQ1_0", kSuper, 54, nullptr},
    GgufTypeTraits{T::kTQ2_0, "TQ2_0", kSuper, 66, nullptr},
    GgufTypeTraits{T::kMXFP4, "MXFP4", kSmall, 17, nullptr},
};

const GgufTypeTraits* find_traits(std::uint32_t number) {
  const auto found = std::find_if(kTraits.begin(), kTraits.end(),
                                  [&](const auto& row) { return static_cast<std::uint32_t>(row.type) == number; });
  return found == kTraits.end() ? nullptr : &*found;
}

/// Checks sizes and returns the number of blocks.
std::int64_t count_blocks(const GgufTypeTraits& traits, std::span<const std::byte> bytes, std::span<float> out) {
  GANTRY_CHECK(traits.dequantize != nullptr,
               "GGUF type {} is not supported; convert the file to F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K "
               "or Q6_K",
               traits.name);
  const auto blocks = static_cast<std::int64_t>(bytes.size()) / traits.block_bytes;
  GANTRY_CHECK(static_cast<std::int64_t>(bytes.size()) == blocks * traits.block_bytes &&
                   static_cast<std::int64_t>(out.size()) == blocks * traits.block_elements,
               "GGUF type {}: {} bytes do not give {} elements", traits.name, bytes.size(), out.size());
  return blocks;
}

}  // namespace

std::optional<GgufType> parse_gguf_type(std::uint32_t number) {
  const GgufTypeTraits* traits = find_traits(number);
  return traits == nullptr ? std::nullopt : std::optional(traits->type);
}

const GgufTypeTraits& gguf_traits(GgufType type) {
  const GgufTypeTraits* traits = find_traits(static_cast<std::uint32_t>(type));
  GANTRY_CHECK(traits != nullptr, "unknown GGUF type number {}", static_cast<std::uint32_t>(type));
  return *traits;
}

std::string_view gguf_type_name(GgufType type) { return gguf_traits(type).name; }

void dequantize_blocks(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  const GgufTypeTraits& traits = gguf_traits(type);
  const std::int64_t blocks = count_blocks(traits, bytes, out);
  if (blocks != 0) traits.dequantize(reinterpret_cast<const std::uint8_t*>(bytes.data()), blocks, out.data());
}

void dequantize_blocks_parallel(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  constexpr std::int64_t kGrainElements = std::int64_t{1} << 17;
  const GgufTypeTraits& traits = gguf_traits(type);
  const std::int64_t blocks = count_blocks(traits, bytes, out);
  base::parallel_ranges(blocks, kGrainElements / traits.block_elements, [&](std::int64_t begin, std::int64_t end) {
    traits.dequantize(reinterpret_cast<const std::uint8_t*>(bytes.data()) + begin * traits.block_bytes, end - begin,
                      out.data() + begin * traits.block_elements);
  });
}

}  // namespace gantry::formats
