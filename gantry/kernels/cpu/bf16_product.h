#pragma once
// C (+)= A B with bf16 operands and fp32 sums, on operands that lie in tiles: AMX (tdpbf16ps, Intel's instruction set
// reference) in the namespace amx, dot products of AVX512-BF16 (vdpbf16ps) in avx512_bf16. Both read the same layout,
// and both take denormal operands and results as zero. Only *_bf16_cpu.cpp files include it.
#include <immintrin.h>

#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

inline constexpr std::int64_t kTileRows = 16;       ///< rows of A and C, columns of B and C
inline constexpr std::int64_t kTileDepth = 32;      ///< columns of A, rows of B
inline constexpr std::int64_t kTileElements = 512;  ///< bf16 elements of a tile of A or B
inline constexpr std::int64_t kTileSums = 256;      ///< fp32 elements of a tile of C

/// Row i of tile (m, k), 32 elements, is at data + m * m_step + k * k_step + i * row.
struct TilesA {
  const Bf16* data;
  std::int64_t row, m_step, k_step;
};

/// Tile (k, n), 512 elements, is at data + k * k_step + n * n_step; rows 2i and 2i + 1 lie interleaved in its 32
/// elements from 32 i.
struct TilesB {
  const Bf16* data;
  std::int64_t k_step, n_step;
};

/// Row i of tile (m, n), 16 elements, is at data + m * m_step + n * n_step + i * row.
struct TilesC {
  float* data;
  std::int64_t row, m_step, n_step;
};

struct TileCounts {
  std::int64_t m, n, k;
};

inline TilesA at_tile(const TilesA& a, std::int64_t m) { return {a.data + m * a.m_step, a.row, a.m_step, a.k_step}; }
inline TilesB at_tile(const TilesB& b, std::int64_t n) { return {b.data + n * b.n_step, b.k_step, b.n_step}; }
inline TilesC at_tile(const TilesC& c, std::int64_t m, std::int64_t n) {
  return {c.data + m * c.m_step + n * c.n_step, c.row, c.m_step, c.n_step};
}

#if defined(__AMX_BF16__)

/// While one lives its thread's tile registers are configured for bf16_product(); the configuration that it finds (that
/// of another library, if it keeps one between its calls) comes back at the end.
class TileScope {
 public:
  TileScope() {
    constexpr std::uint8_t kPalette = 1, kTiles = 8, kRowBytes = 64;
    Configuration ours = {};
    ours.palette = kPalette;
    for (int t = 0; t < kTiles; ++t) {
      ours.row_bytes[t] = kRowBytes;
      ours.rows[t] = kTileRows;
    }
    __asm__ volatile("sttilecfg %0" : "=m"(found_));
    __asm__ volatile("ldtilecfg %0" : : "m"(ours));
  }
  ~TileScope() {
    if (found_.palette == 0) {
      __asm__ volatile("tilerelease");
    } else {
      __asm__ volatile("ldtilecfg %0" : : "m"(found_));
    }
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  struct Configuration {
    std::uint8_t palette, start_row, reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  };
  static_assert(sizeof(Configuration) == 64);
  Configuration found_;
};

// Registers: sums in 0 to 3, A in 4 and 5, B in 6 and 7.
template <int kM, int kN>
GANTRY_INLINE void tile_block(const TilesA& a, const TilesB& b, const TilesC& c, std::int64_t depth, bool accumulate) {
  const std::int64_t c_bytes = c.row * 4, a_bytes = a.row * 2;
  if (accumulate) {
    _tile_loadd(0, c.data, c_bytes);
    if constexpr (kN > 1) _tile_loadd(1, c.data + c.n_step, c_bytes);
    if constexpr (kM > 1) _tile_loadd(2, c.data + c.m_step, c_bytes);
    if constexpr (kM > 1 && kN > 1) _tile_loadd(3, c.data + c.m_step + c.n_step, c_bytes);
  } else {
    _tile_zero(0);
    if constexpr (kN > 1) _tile_zero(1);
    if constexpr (kM > 1) _tile_zero(2);
    if constexpr (kM > 1 && kN > 1) _tile_zero(3);
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const Bf16* left = a.data + k * a.k_step;
    const Bf16* right = b.data + k * b.k_step;
    _tile_loadd(6, right, 64);
    _tile_loadd(4, left, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kM > 1) {
      _tile_loadd(5, left + a.m_step, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kN > 1) {
      _tile_loadd(7, right + b.n_step, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kM > 1 && kN > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c.data, c_bytes);
  if constexpr (kN > 1) _tile_stored(1, c.data + c.n_step, c_bytes);
  if constexpr (kM > 1) _tile_stored(2, c.data + c.m_step, c_bytes);
  if constexpr (kM > 1 && kN > 1) _tile_stored(3, c.data + c.m_step + c.n_step, c_bytes);
}

inline void bf16_product(const TilesA& a, const TilesB& b, const TilesC& c, const TileCounts& count, bool accumulate) {
  __asm__ volatile("" : : : "memory");  // GCC's tile loads do not say that they read memory
  for (std::int64_t n = 0; n < count.n; n += 2) {
    for (std::int64_t m = 0; m < count.m; m += 2) {
      const bool two_m = m + 1 < count.m, two_n = n + 1 < count.n;
      if (two_m && two_n) {
        tile_block<2, 2>(at_tile(a, m), at_tile(b, n), at_tile(c, m, n), count.k, accumulate);
      } else if (two_n) {
        tile_block<1, 2>(at_tile(a, m), at_tile(b, n), at_tile(c, m, n), count.k, accumulate);
      } else if (two_m) {
        tile_block<2, 1>(at_tile(a, m), at_tile(b, n), at_tile(c, m, n), count.k, accumulate);
      } else {
        tile_block<1, 1>(at_tile(a, m), at_tile(b, n), at_tile(c, m, n), count.k, accumulate);
      }
    }
  }
  __asm__ volatile("" : : : "memory");
}

#else

/// Nothing to configure.
class TileScope {
 public:
  TileScope() {}
};

// kRows rows of a tile row of A against kN tiles: 4 x 4 sums hide the latency of the dot product.
template <int kRows, int kN>
GANTRY_INLINE void tile_block(const TilesA& a, const TilesB& b, const TilesC& c, std::int64_t depth, bool accumulate) {
  F32x16 sums[kRows][kN];
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kN; ++n) sums[r][n] = accumulate ? load(c.data + r * c.row + n * c.n_step) : F32x16{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::int64_t i = 0; i < kTileDepth; i += 2) {
      __m512bh right[kN];
      for (int n = 0; n < kN; ++n) std::memcpy(&right[n], b.data + k * b.k_step + n * b.n_step + i * kTileRows, 64);
      for (int r = 0; r < kRows; ++r) {
        std::int32_t pair;
        std::memcpy(&pair, a.data + r * a.row + k * a.k_step + i, sizeof(pair));
        const auto left = (__m512bh)_mm512_set1_epi32(pair);
        for (int n = 0; n < kN; ++n) {
          sums[r][n] = reinterpret_cast<F32x16>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums[r][n]), left, right[n]));
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kN; ++n) store(c.data + r * c.row + n * c.n_step, sums[r][n]);
  }
}

inline void bf16_product(const TilesA& a, const TilesB& b, const TilesC& c, const TileCounts& count, bool accumulate) {
  constexpr int kRows = 4, kN = 4;
  for (std::int64_t m = 0; m < count.m; ++m) {
    for (std::int64_t r = 0; r < kTileRows; r += kRows) {
      const TilesA rows{a.data + m * a.m_step + r * a.row, a.row, a.m_step, a.k_step};
      const TilesC sums{c.data + m * c.m_step + r * c.row, c.row, c.m_step, c.n_step};
      std::int64_t n = 0;
      for (; n + kN <= count.n; n += kN) {
        tile_block<kRows, kN>(rows, at_tile(b, n), at_tile(sums, 0, n), count.k, accumulate);
      }
      for (; n < count.n; ++n) tile_block<kRows, 1>(rows, at_tile(b, n), at_tile(sums, 0, n), count.k, accumulate);
    }
  }
}

#endif

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
