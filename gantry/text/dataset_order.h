#pragma once
// A shuffle without a table: a permutation of [0, size) computed one value at a time from a key.
#include <cstdint>

namespace gantry::text {

/// A Feistel network over the smallest even number of bits that holds `size`, walked until it lands inside. Costs a few
/// dozen operations a value and no memory; identical on every machine.
class Permutation {
 public:
  /// `size` > 0.
  Permutation(std::uint64_t size, std::uint64_t key);
  /// Where `index` < size goes.
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  std::uint64_t size_;
  std::uint64_t key_;
  unsigned half_bits_;
};

}  // namespace gantry::text
