#pragma once
// Applies the merges of a BPE model to a row of symbols, lowest rank first, leftmost among equals.
#include <cstdint>
#include <vector>

#include "gantry/text/flat_map.h"

namespace gantry::text {

struct BpeMerge {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t result = 0;
};

class BpeMerger {
 public:
  /// ranks[i] orders merges[i]; lower goes first, and equal ranks are allowed. Of two merges of one pair the first
  /// counts.
  BpeMerger(const std::vector<BpeMerge>& merges, const std::vector<std::uint32_t>& ranks);

  /// Merges `symbols` in place until no merge applies. O(n log n).
  void merge(std::vector<std::int32_t>& symbols) const;

 private:
  static constexpr std::uint64_t kNoMerge = ~std::uint64_t{0};
  /// rank << 32 | result, or kNoMerge.
  std::uint64_t lookup(std::int32_t left, std::int32_t right) const;
  void merge_short(std::vector<std::int32_t>& symbols) const;
  void merge_long(std::vector<std::int32_t>& symbols) const;

  FlatMap64 table_;
};

}  // namespace gantry::text
