#pragma once
// Remembers the ids of recent words, a table a thread, so that no lock is needed.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace gantry::text {

/// Each WordCache has its own keys in the shared tables; words of up to 22 bytes and 8 ids are remembered.
class WordCache {
 public:
  WordCache();

  /// Appends the ids of `word` and returns true, if this thread remembers it.
  bool append(std::string_view word, std::vector<std::int32_t>& out) const;
  void store(std::string_view word, std::span<const std::int32_t> ids) const;

 private:
  std::uint64_t owner_;
};

}  // namespace gantry::text
