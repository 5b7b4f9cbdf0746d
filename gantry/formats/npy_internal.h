#pragma once
// Shared by the .npy and .npz code.
#include <string>

#include "gantry/formats/npy.h"

namespace gantry::formats::internal {

/// Magic, version and header of a .npy file, padded so that the data starts at a multiple of 64. Checks the array too.
std::string make_npy_header(const NpyToWrite& array, const std::string& source);

/// Unpacks raw deflate data that must give exactly `bytes` bytes.
std::vector<std::byte> inflate_exactly(std::span<const std::byte> packed, std::uint64_t bytes,
                                       const std::string& source);

}  // namespace gantry::formats::internal
