#pragma once
// SHA-256, for comparing large results with goldens.
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace gantry::formats::testing {

namespace sha256_internal {

/// The first 32 bits of the fractional parts of the `root`-th roots of the first primes.
template <std::size_t N>
std::array<std::uint32_t, N> prime_roots(int root) {
  std::array<std::uint32_t, N> words{};
  std::size_t found = 0;
  for (std::uint64_t candidate = 2; found < N; ++candidate) {
    bool prime = true;
    for (std::uint64_t d = 2; d * d <= candidate; ++d) prime = prime && candidate % d != 0;
    if (!prime) continue;
    // Largest x with x^root <= candidate * 2^(32 root), by bisection; the low 32 bits of x are the fraction.
    std::uint64_t low = 0;
    std::uint64_t high = std::uint64_t{1} << 37;
    while (high - low > 1) {
      const unsigned __int128 x = (low + high) / 2;
      // Cubes of 37-bit numbers fit into 128 bits.
      const bool fits = root == 2 ? x * x <= static_cast<unsigned __int128>(candidate) << 64
                                  : x * x * x <= static_cast<unsigned __int128>(candidate) << 96;
      (fits ? low : high) = static_cast<std::uint64_t>(x);
    }
    words[found++] = static_cast<std::uint32_t>(low);
  }
  return words;
}

inline void compress(std::array<std::uint32_t, 8>& state, const std::uint8_t* block) {
  static const auto kRound = prime_roots<64>(3);
  std::array<std::uint32_t, 64> w;
  for (int i = 0; i < 16; ++i) {
    w[i] = std::uint32_t{block[4 * i]} << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
  }
  for (int i = 16; i < 64; ++i) {
    const auto a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const auto b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (int i = 0; i < 64; ++i) {
    const auto t1 =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const auto t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<std::uint32_t, 8> add{a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state[i] += add[i];
}

}  // namespace sha256_internal

/// Lower-case hexadecimal digest.
inline std::string sha256(std::span<const std::byte> bytes) {
  auto state = sha256_internal::prime_roots<8>(2);
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const std::size_t whole = bytes.size() / 64 * 64;
  for (std::size_t at = 0; at < whole; at += 64) sha256_internal::compress(state, data + at);
  std::vector<std::uint8_t> tail(data + whole, data + bytes.size());
  tail.push_back(0x80);
  while (tail.size() % 64 != 56) tail.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8) {
    tail.push_back(static_cast<std::uint8_t>(std::uint64_t{bytes.size()} * 8 >> shift));
  }
  for (std::size_t at = 0; at < tail.size(); at += 64) sha256_internal::compress(state, tail.data() + at);
  std::string text;
  for (const std::uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  }
  return text;
}

}  // namespace gantry::formats::testing
