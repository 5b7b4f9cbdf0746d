#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace gantry::base {

/// FNV-1a of the text as 16 hex digits: tells whether two contents differ, no protection against forgery.
inline std::string content_hash(std::string_view text) {
  std::uint64_t hash = 14695981039346656037u;
  for (const char character : text) hash = (hash ^ static_cast<unsigned char>(character)) * 1099511628211u;
  return fmt::format("{:016x}", hash);
}

}  // namespace gantry::base
