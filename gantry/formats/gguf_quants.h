#pragma once
// Block formats of GGUF tensors: sizes of all of them, de-quantising to fp32 of those that Gantry reads.
//
// A block is a run of consecutive elements of one row that share scales. For the formats read here de-quantising takes
// at most one rounding in fp32, so any correct implementation yields the same bits.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace gantry::formats {

/// Numbers as in the file format.
enum class GgufType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct GgufTypeTraits {
  GgufType type;
  std::string_view name;        ///< "Q4_K"
  std::int64_t block_elements;  ///< 1 for plain types
  std::int64_t block_bytes;
  /// Converts `blocks` blocks; null when Gantry does not read the type.
  void (*dequantize)(const std::uint8_t* from, std::int64_t blocks, float* to);
};

/// Nothing when the number names no type that is known here.
std::optional<GgufType> parse_gguf_type(std::uint32_t number);
const GgufTypeTraits& gguf_traits(GgufType type);
std::string_view gguf_type_name(GgufType type);

/// De-quantises whole blocks on the calling thread. `bytes` must hold exactly the blocks of `out`; InputError otherwise
/// and for types that are not read.
void dequantize_blocks(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

/// The same on several threads where the tensor is large.
void dequantize_blocks_parallel(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace gantry::formats
