#include "gantry/text/dataset_order.h"

#include <algorithm>
#include <bit>

#include "gantry/base/check.h"
#include "gantry/base/random.h"

namespace gantry::text {

Permutation::Permutation(std::uint64_t size, std::uint64_t key) : size_(size), key_(base::mix64(key)) {
  GANTRY_CHECK(size > 0, "a permutation needs at least one element");
  half_bits_ = std::max(1u, (static_cast<unsigned>(std::bit_width(size - 1)) + 1) / 2);
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  constexpr unsigned kRounds = 8;  // small domains need more rounds than large ones
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (unsigned round = 0; round < kRounds; ++round) {
    const std::uint64_t next = left ^ (base::mix64(key_ ^ base::mix64(right + (std::uint64_t{round} << 56))) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  GANTRY_CHECK(index < size_, "element {} of a permutation of {}", index, size_);
  do {
    index = encrypt(index);
  } while (index >= size_);
  return index;
}

}  // namespace gantry::text
