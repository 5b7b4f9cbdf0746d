#include <algorithm>

#include "gantry/kernels/cpu/transpose.h"
#include "gantry/kernels/gemm/gemm_blocks.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

// The accumulators of a tile: 24 of the 32 registers of AVX-512; 12 of the 16 that AVX2 has. Vectors as wide as the
// registers: GCC keeps wider ones in memory.
#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 3, kWidth = 16;
typedef F32x16 Vector;
#else
constexpr int kTileRows = 6, kTileVectors = 2, kWidth = 8;
typedef F32x8 Vector;
#endif
constexpr std::int64_t kTileColumns = kTileVectors * kWidth;
constexpr std::int64_t kMaxDepth = kGemmDepth;
constexpr std::int64_t kMaxColumns = kGemmColumns / kTileColumns * kTileColumns;
constexpr std::int64_t kGroupRows = kGemmRows / kTileRows * kTileRows;
constexpr std::int64_t kSliverStride = kMaxDepth + kLanes;  // between the rows of a sliver: no power of two
constexpr std::int64_t kAheadRows = 4, kAheadColumns = 64;  // of software prefetch while packing B

// Distance in a sliver of A from row to row and from one k to the next. Both orders are plain copies of the source.
template <bool kTransposed>
constexpr std::int64_t kRowStep = kTransposed ? 1 : kSliverStride;
template <bool kTransposed>
constexpr std::int64_t kDepthStep = kTransposed ? kTileRows : 1;

GANTRY_INLINE Vector load_vector(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

#if defined(__AVX512F__)
GANTRY_INLINE Vector broadcast(float value) { return splat(value); }
#else
GANTRY_INLINE Vector broadcast(float x) { return Vector{x, x, x, x, x, x, x, x}; }
#endif

// `rows` x `columns` elements of the tile are wanted; the packed operands are zero behind them.
template <int kVectors, bool kTransposed>
void tile(const float* a, const float* b, std::int64_t k, const Output& out, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(out.c + r * out.stride + v * kWidth, 1);
  }
  Vector sums[kTileRows][kVectors] = {};
#pragma GCC unroll 2
  for (std::int64_t p = 0; p < k; ++p) {
    Vector row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load_vector(b + v * kWidth);
    for (int r = 0; r < kTileRows; ++r) {
      const Vector value = broadcast(a[r * kRowStep<kTransposed>]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += value * row[v];
    }
    a += kDepthStep<kTransposed>;
    b += kTileColumns;
  }
  if (rows == kTileRows && columns == kVectors * kWidth) {
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        Vector sum = sums[r][v];
        if (out.addend != nullptr) sum += load_vector(out.addend + r * out.addend_stride + v * kWidth);
        std::memcpy(out.c + r * out.stride + v * kWidth, &sum, sizeof(sum));
      }
    }
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    float line[kVectors * kWidth];
    std::memcpy(line, sums[r], sizeof(line));
    for (std::int64_t j = 0; j < columns; ++j) {
      out.c[r * out.stride + j] = line[j] + (out.addend != nullptr ? out.addend[r * out.addend_stride + j] : 0.0f);
    }
  }
}

template <bool kTransposed>
void narrow_tile(const float* a, const float* b, std::int64_t k, const Output& out, std::int64_t rows,
                 std::int64_t columns) {
  if (columns > 2 * kWidth) return tile<std::min(3, kTileVectors), kTransposed>(a, b, k, out, rows, columns);
  if (columns > kWidth) return tile<std::min(2, kTileVectors), kTransposed>(a, b, k, out, rows, columns);
  tile<1, kTransposed>(a, b, k, out, rows, columns);
}

// Rows of a sliver from [m, k] storage, behind one another.
void pack_rows(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t k, float* to) {
  for (int r = 0; r < kTileRows; ++r) {
    const std::size_t bytes = static_cast<std::size_t>(k) * sizeof(float);
    if (r < rows) {
      std::memcpy(to + r * kSliverStride, from + r * stride, bytes);
    } else {
      std::memset(to + r * kSliverStride, 0, bytes);
    }
  }
}

// Line p of all panels of B from [k, n] storage; the rest of the last one is zero.
void pack_line(const float* from, std::int64_t width, std::int64_t ahead, std::int64_t panel_stride, float* to) {
  std::int64_t j = 0;
  for (; j + kTileColumns <= width; j += kTileColumns, to += panel_stride) {
    std::memcpy(to, from + j, kTileColumns * sizeof(float));
    for (int v = 0; v < kTileColumns; v += kLanes) __builtin_prefetch(from + j + v + ahead);
  }
  for (std::int64_t i = 0; j < width && i < kTileColumns; ++i) to[i] = j + i < width ? from[j + i] : 0.0f;
}

// A panel of B from [n, k] storage.
void pack_transposed(const float* from, std::int64_t stride, std::int64_t width, std::int64_t k, float* to) {
  for (int j = 0; j < kTileColumns; j += kLanes) {
    std::int64_t p = 0;
    if (j + kLanes <= width) {
      for (; p + kLanes <= k; p += kLanes) {
        F32x16 block[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          block[i] = load(from + (j + i) * stride + p);
          __builtin_prefetch(from + (j + i) * stride + p + kAheadColumns);
        }
        transpose(block);
        for (int i = 0; i < kLanes; ++i) store(to + (p + i) * kTileColumns + j, block[i]);
      }
    }
    for (; p < k; ++p) {
      for (int i = j; i < j + kLanes; ++i) to[p * kTileColumns + i] = i < width ? from[i * stride + p] : 0.0f;
    }
  }
}

struct Block {
  std::int64_t k_begin, depth, n_begin, width;
};

void pack_b(const GemmArgs& args, const Block& block, float* to) {
  const std::int64_t panel = kTileColumns * block.depth;
  if (!args.b_transposed) {
    const float* from = args.b + block.k_begin * args.b_stride + block.n_begin;
    for (std::int64_t p = 0; p < block.depth; ++p) {
      pack_line(from + p * args.b_stride, block.width, std::min(kAheadRows, block.depth - 1 - p) * args.b_stride, panel,
                to + p * kTileColumns);
    }
    return;
  }
  for (std::int64_t j = 0; j < block.width; j += kTileColumns, to += panel) {
    pack_transposed(args.b + (block.n_begin + j) * args.b_stride + block.k_begin, args.b_stride,
                    std::min(kTileColumns, block.width - j), block.depth, to);
  }
}

// Slivers for the rows [m, m + rows).
template <bool kTransposed>
void pack_a(const GemmArgs& args, const Block& block, std::int64_t m, std::int64_t rows, float* to) {
  for (std::int64_t i = 0; i < rows; i += kTileRows) {
    const std::int64_t height = std::min<std::int64_t>(kTileRows, rows - i);
    pack_rows(args.a + (m + i) * args.a_stride + block.k_begin, args.a_stride, height, block.depth,
              to + i * kSliverStride);
  }
}

// All slivers of a group at once: single ones would read half cache lines, and lines a power of two apart, which evict
// each other before their second half is wanted.
template <>
void pack_a<true>(const GemmArgs& args, const Block& block, std::int64_t m, std::int64_t rows, float* to) {
  const float* from = args.a + block.k_begin * args.a_stride + m;
  for (std::int64_t p = 0; p < block.depth; ++p, from += args.a_stride) {
    float* line = to + p * kTileRows;
    std::int64_t i = 0;
    for (; i + kTileRows <= rows; i += kTileRows, line += kTileRows * kSliverStride) {
      std::memcpy(line, from + i, kTileRows * sizeof(float));
    }
    for (std::int64_t j = 0; i < rows && j < kTileRows; ++j) line[j] = i + j < rows ? from[i + j] : 0.0f;
  }
}

template <bool kTransposed>
void multiply_block(const GemmArgs& args, const Block& block, std::int64_t m_begin, std::int64_t m_end,
                    const float* packed_b, float* slivers) {
  for (std::int64_t m = m_begin; m < m_end; m += kGroupRows) {
    const std::int64_t rows = std::min(kGroupRows, m_end - m);
    pack_a<kTransposed>(args, block, m, rows, slivers);
    for (std::int64_t i = 0; i < rows; i += kTileRows) {
      const std::int64_t height = std::min<std::int64_t>(kTileRows, rows - i);
      for (std::int64_t j = 0; j < block.width; j += kTileColumns) {
        narrow_tile<kTransposed>(slivers + i * kSliverStride, packed_b + j * block.depth, block.depth,
                                 output_at(args, block.k_begin, m + i, block.n_begin + j), height,
                                 std::min(kTileColumns, block.width - j));
      }
    }
  }
}

}  // namespace

void gemm(const GemmArgs& args, const GemmRange& range, float* scratch) {
  if (range.m_begin >= range.m_end || range.n_begin >= range.n_end) return;
  const std::int64_t depth = block_extent(args.k, kMaxDepth, kLanes);
  const std::int64_t width = block_extent(range.n_end - range.n_begin, kMaxColumns, kTileColumns);
  float* const slivers = scratch + kGemmDepth * kGemmColumns;
  for (std::int64_t n = range.n_begin; n < range.n_end; n += width) {
    for (std::int64_t k = 0; k < args.k; k += depth) {
      const Block block{k, std::min(depth, args.k - k), n, std::min(width, range.n_end - n)};
      pack_b(args, block, scratch);
      if (args.a_transposed) {
        multiply_block<true>(args, block, range.m_begin, range.m_end, scratch, slivers);
      } else {
        multiply_block<false>(args, block, range.m_begin, range.m_end, scratch, slivers);
      }
    }
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
