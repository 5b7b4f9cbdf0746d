#pragma once
// C[m, n] (+)= A[m, k] B[k, n] for cache-resident tiles, n <= 64. A is read one element at a time (broadcast), so any
// strides do: a transposed A costs nothing. B rows are contiguous fp32. Only *_cpu.cpp files include it.
#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

// Accumulators of a block: 24 of the 32 registers of AVX-512, 12 of the 16 that AVX2 and SSE have. Vectors as wide as
// the registers: GCC keeps wider ones in memory.
#if defined(__AVX512F__)
typedef F32x16 PanelVector;
inline constexpr int kPanelVectors = 4;
#elif defined(__AVX2__)
typedef F32x8 PanelVector;
inline constexpr int kPanelVectors = 2;
#else
typedef F32x4 PanelVector;
inline constexpr int kPanelVectors = 2;
#endif
inline constexpr int kPanelRows = 6;
inline constexpr int kPanelWidth = sizeof(PanelVector) / sizeof(float);

GANTRY_INLINE PanelVector panel_load(const float* from) {
  PanelVector value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

GANTRY_INLINE PanelVector panel_splat(float value) {
#if defined(__AVX512F__)
  return splat(value);
#elif defined(__AVX2__)
  return PanelVector{value, value, value, value, value, value, value, value};
#else
  return PanelVector{value, value, value, value};
#endif
}

struct PanelA {
  const float* data;
  std::int64_t row_stride;
  std::int64_t k_stride;
};

template <int kRows, int kVectors>
GANTRY_INLINE void panel_block(const PanelA& a, const float* b, std::int64_t b_stride, float* c, std::int64_t c_stride,
                               std::int64_t k, bool accumulate) {
  PanelVector sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = accumulate ? panel_load(c + r * c_stride + v * kPanelWidth) : PanelVector{};
  }
  for (std::int64_t p = 0; p < k; ++p) {
    PanelVector row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = panel_load(b + p * b_stride + v * kPanelWidth);
    for (int r = 0; r < kRows; ++r) {
      const PanelVector value = panel_splat(a.data[r * a.row_stride + p * a.k_stride]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += value * row[v];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v)
      std::memcpy(c + r * c_stride + v * kPanelWidth, &sums[r][v], sizeof(PanelVector));
  }
}

template <int kVectors>
void panel_rows(PanelA a, const float* b, std::int64_t b_stride, float* c, std::int64_t c_stride, std::int64_t m,
                std::int64_t k, bool accumulate) {
  constexpr int kRows = kPanelRows;
  std::int64_t row = 0;
  for (; row + kRows <= m; row += kRows) {
    panel_block<kRows, kVectors>({a.data + row * a.row_stride, a.row_stride, a.k_stride}, b, b_stride,
                                 c + row * c_stride, c_stride, k, accumulate);
  }
  for (; row + 2 <= m; row += 2) {
    panel_block<2, kVectors>({a.data + row * a.row_stride, a.row_stride, a.k_stride}, b, b_stride, c + row * c_stride,
                             c_stride, k, accumulate);
  }
  if (row < m) {
    panel_block<1, kVectors>({a.data + row * a.row_stride, a.row_stride, a.k_stride}, b, b_stride, c + row * c_stride,
                             c_stride, k, accumulate);
  }
}

/// n must be a multiple of 16.
inline void panel_gemm(PanelA a, const float* b, std::int64_t b_stride, float* c, std::int64_t c_stride, std::int64_t m,
                       std::int64_t n, std::int64_t k, bool accumulate) {
  std::int64_t column = 0;
  for (; column + kPanelVectors * kPanelWidth <= n; column += kPanelVectors * kPanelWidth) {
    panel_rows<kPanelVectors>(a, b + column, b_stride, c + column, c_stride, m, k, accumulate);
  }
  for (; column < n; column += kPanelWidth) {
    panel_rows<1>(a, b + column, b_stride, c + column, c_stride, m, k, accumulate);
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
