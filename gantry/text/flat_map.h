#pragma once
// Open-addressing map from 64-bit keys to 64-bit values: one cache line a lookup, for merge tables and trie edges.
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gantry/base/random.h"

namespace gantry::text {

/// Keys must differ from kNoKey. Only grows; entries are never removed.
class FlatMap64 {
 public:
  static constexpr std::uint64_t kNoKey = ~std::uint64_t{0};

  explicit FlatMap64(std::size_t expected = 0) {
    std::size_t capacity = 16;
    while (capacity < expected * 2) capacity *= 2;
    slots_.assign(capacity, Slot{});
  }

  /// The value of `key`, or nullptr.
  const std::uint64_t* find(std::uint64_t key) const {
    for (std::size_t at = base::mix64(key);; ++at) {
      const Slot& slot = slots_[at & (slots_.size() - 1)];
      if (slot.key == key) return &slot.value;
      if (slot.key == kNoKey) return nullptr;
    }
  }

  /// Inserts unless the key is present; returns the stored value and whether it is new.
  std::pair<std::uint64_t*, bool> insert(std::uint64_t key, std::uint64_t value) {
    if ((used_ + 1) * 2 > slots_.size()) grow();
    for (std::size_t at = base::mix64(key);; ++at) {
      Slot& slot = slots_[at & (slots_.size() - 1)];
      if (slot.key == key) return {&slot.value, false};
      if (slot.key != kNoKey) continue;
      slot = {key, value};
      ++used_;
      return {&slot.value, true};
    }
  }

  std::size_t size() const { return used_; }

 private:
  struct Slot {
    std::uint64_t key = kNoKey;
    std::uint64_t value = 0;
  };

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    used_ = 0;
    for (const Slot& slot : old) {
      if (slot.key != kNoKey) insert(slot.key, slot.value);
    }
  }

  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

}  // namespace gantry::text
