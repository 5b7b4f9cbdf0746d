#pragma once
// The tokens of a model: spelling to id and back.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gantry::text {

/// Ids may have holes; a hole spells as "". Two ids may share a spelling: then find() gives the one added first.
class Vocabulary {
 public:
  static constexpr std::int32_t kNone = -1;

  Vocabulary() = default;
  /// Throws InputError, starting with `source`, when an id is negative, used twice, or so large that most of the ids
  /// below it would be holes.
  Vocabulary(const std::vector<std::pair<std::string_view, std::int32_t>>& tokens, std::string_view source);
  /// Token i has id i.
  Vocabulary(const std::vector<std::string>& tokens, std::string_view source);

  std::int32_t find(std::string_view token) const;
  /// Precondition: 0 <= id < size().
  std::string_view text(std::int32_t id) const {
    const auto& entry = entries_[static_cast<std::size_t>(id)];
    return std::string_view(arena_).substr(entry.offset, entry.length);
  }
  bool is_hole(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].offset == kHole; }
  /// One more than the largest id.
  std::int32_t size() const { return static_cast<std::int32_t>(entries_.size()); }

 private:
  static constexpr std::uint32_t kHole = 0;  // the arena begins with one byte that no token owns
  struct Entry {
    std::uint32_t offset = kHole;
    std::uint32_t length = 0;
  };

  std::string arena_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> table_;  // open addressing, power of two
};

}  // namespace gantry::text
