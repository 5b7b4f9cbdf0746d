#pragma once
// Shared by the GGUF reader and writer.
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "gantry/formats/gguf.h"

namespace gantry::formats::internal {

inline constexpr std::uint32_t kGgufMagic = 0x46554747;  // "GGUF"
inline constexpr std::uint32_t kGgufArray = 9;           // the file's number of the array type
inline constexpr std::uint64_t kGgufDefaultAlignment = 32;
inline constexpr std::size_t kGgufMaxDimensions = 4;

/// Throws InputError unless `alignment` is a power of two up to 1 MiB.
void check_gguf_alignment(std::uint64_t alignment, const std::string& source);

/// Bytes of a tensor. Throws InputError when sizes are negative or overflow, there are more than four, or a row does
/// not hold whole blocks.
std::uint64_t gguf_tensor_bytes(const std::string& name, GgufType type, std::span<const std::int64_t> shape,
                                const std::string& source);

/// Any integer value that fits, else nothing.
std::optional<std::int64_t> gguf_integer(const GgufValue& value);

}  // namespace gantry::formats::internal
