#pragma once
// Small deterministic generators for data order, sampling and synthetic inputs; identical on every platform and thread
// count. Dropout masks use the Philox kernels instead.
#include <cstdint>

namespace gantry::base {

/// Mixes a 64-bit value (the finaliser of SplitMix64).
inline std::uint64_t mix64(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15ull;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

/// Counter-based stream: the n-th draw depends only on (seed, n), so a position is all that a checkpoint stores.
class CounterRandom {
 public:
  explicit CounterRandom(std::uint64_t seed, std::uint64_t position = 0) : seed_(mix64(seed)), position_(position) {}

  std::uint64_t next() { return mix64(seed_ ^ mix64(position_++)); }
  /// Uniform in [0, 1) with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  /// Uniform in [0, bound), bound > 0, without modulo bias.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t threshold = (0 - bound) % bound;
    for (;;) {
      const auto product = static_cast<unsigned __int128>(next()) * bound;
      if (static_cast<std::uint64_t>(product) >= threshold) return static_cast<std::uint64_t>(product >> 64);
    }
  }
  std::uint64_t position() const { return position_; }

 private:
  std::uint64_t seed_;
  std::uint64_t position_;
};

}  // namespace gantry::base
