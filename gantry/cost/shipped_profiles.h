#pragma once
// The files of profiles/, embedded by CMake (cmake/EmbedProfiles.cmake), so that the program needs no data folder.
#include <span>
#include <string_view>

namespace gantry::cost {

struct ShippedProfile {
  std::string_view name;  ///< file name without its ending
  std::string_view json;
};

/// In the order of names.
std::span<const ShippedProfile> shipped_profiles();

}  // namespace gantry::cost
