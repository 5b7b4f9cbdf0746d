#pragma once
// A fast 64-bit hash for checksums and cache keys of token data; not meant against an adversary. Stable across
// machines.
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "gantry/base/random.h"

namespace gantry::text {

class DataHash {
 public:
  /// Bytes may arrive in pieces of any size; only their concatenation counts.
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  /// A number, 8 bytes little-endian.
  void add(std::uint64_t value);
  /// A text and its length, so that ("ab", "c") differs from ("a", "bc").
  void add_field(std::string_view text) {
    add(static_cast<std::uint64_t>(text.size()));
    add(text);
  }
  std::uint64_t value() const;

 private:
  void mix(std::uint64_t word) {
    const std::size_t lane = lane_++ & 3;
    state_[lane] = std::rotl((state_[lane] ^ word) * 0x9fb21c651e98df25ull, 29);
  }

  std::uint64_t state_[4] = {1, 2, 3, 4};
  std::uint64_t length_ = 0;
  std::size_t lane_ = 0;
  std::uint64_t pending_ = 0;  // bytes of a word not yet whole
};

inline void DataHash::add(std::span<const std::byte> bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t filled = length_ & 7;
    if (filled == 0) {
      for (; at + 8 <= bytes.size(); at += 8, length_ += 8) {
        std::uint64_t word;
        std::memcpy(&word, bytes.data() + at, 8);
        mix(word);
      }
      if (at == bytes.size()) return;
    }
    pending_ |= static_cast<std::uint64_t>(bytes[at++]) << (8 * (length_ & 7));
    if ((++length_ & 7) == 0) {
      mix(pending_);
      pending_ = 0;
    }
  }
}

inline void DataHash::add(std::uint64_t value) { add(std::as_bytes(std::span(&value, 1))); }

inline std::uint64_t DataHash::value() const {
  std::uint64_t result = base::mix64(length_) ^ base::mix64(pending_ + 5);
  for (const std::uint64_t lane : state_) result = base::mix64(result ^ lane);
  return result;
}

}  // namespace gantry::text
