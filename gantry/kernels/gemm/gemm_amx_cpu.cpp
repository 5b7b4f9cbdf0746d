// The fp32 product on AMX tiles. An fp32 number is the sum of three bf16 numbers (8 bits of its significand each); the
// six largest of the nine products of parts make the product of two numbers up to 2^-24 of it. Henry, Tang, Heinecke:
// Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations (2019), section II.
#include <immintrin.h>

#include <algorithm>

#include "gantry/kernels/cpu/bf16_product.h"
#include "gantry/kernels/cpu/transpose.h"
#include "gantry/kernels/gemm/gemm_blocks.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

constexpr int kParts = 3;
constexpr std::int64_t kPairTiles = 2 * kTileRows;          // rows and columns of a block of sums: 2 x 2 tiles
constexpr std::int64_t kStep = kParts * 2 * kTileElements;  // bf16 elements of 32 rows (columns) and 32 k

// 16 rows of 32 bf16 elements: of one part of a tile.
struct PartTile {
  F32x16 rows[kTileRows];
};

// A tile of the source in its three parts, and whether all of it is finite.
struct SplitTile {
  PartTile parts[kParts];
  F32x16 rest;  // NaN where an element was not finite, or too large for bf16
};

typedef std::uint16_t U16x32 __attribute__((vector_size(64)));

template <int kBegin>
GANTRY_INLINE U16x16 half_of(U16x32 v) {
  return __builtin_shufflevector(v, v, kBegin, kBegin + 1, kBegin + 2, kBegin + 3, kBegin + 4, kBegin + 5, kBegin + 6,
                                 kBegin + 7, kBegin + 8, kBegin + 9, kBegin + 10, kBegin + 11, kBegin + 12, kBegin + 13,
                                 kBegin + 14, kBegin + 15);
}

// The next part of x (16 elements) and y, rounded to the nearest; x and y become what is left of them.
GANTRY_INLINE U16x32 take_part(F32x16& x, F32x16& y) {
  const U16x32 part =
      reinterpret_cast<U16x32>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(y), reinterpret_cast<__m512>(x)));
  x -= from_bf16(half_of<0>(part));
  y -= from_bf16(half_of<kLanes>(part));
  return part;
}

// Elements of x and y in turns.
GANTRY_INLINE U16x32 interleave(U16x32 v) {
  return __builtin_shufflevector(v, v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11,
                                 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// Row i of each part from x and y: side by side, or their elements in turns.
template <bool kInterleaved>
GANTRY_INLINE void split_row(F32x16 x, F32x16 y, int i, SplitTile& to) {
  for (int part = 0; part < kParts; ++part) {
    U16x32 row = take_part(x, y);
    if (kInterleaved) row = interleave(row);
    to.parts[part].rows[i] = reinterpret_cast<F32x16>(row);
  }
  to.rest += x + y;
}

// Up to sixteen elements, zeros behind; none where `count` is below 1.
GANTRY_INLINE F32x16 get_clamped(const float* from, std::int64_t count) {
  return get(from, std::clamp<std::int64_t>(count, 0, kLanes));
}

// Where 16 rows of A (or columns of B) and 32 k begin, and how many of them exist.
struct Source {
  const float* data;
  std::int64_t stride;
  std::int64_t lines, depth;
};

// From storage with k along the rows.
GANTRY_INLINE void split_along(const Source& from, SplitTile& to) {
  for (int i = 0; i < kTileRows; ++i) {
    if (i >= from.lines) {
      for (PartTile& part : to.parts) part.rows[i] = F32x16{};
      continue;
    }
    const float* row = from.data + i * from.stride;
    __builtin_prefetch(row + kPairTiles * from.stride);
    __builtin_prefetch(row + kPairTiles * from.stride + kLanes);
    if (from.depth >= kTileDepth) {
      split_row<false>(load(row), load(row + kLanes), i, to);
    } else {
      split_row<false>(get_clamped(row, from.depth), get_clamped(row + kLanes, from.depth - kLanes), i, to);
    }
  }
}

// From storage with k across the rows: pairs of k, one under the other.
GANTRY_INLINE void split_across(const Source& from, SplitTile& to) {
  for (int i = 0; i < kTileRows; ++i) {
    const float* row = from.data + 2 * i * from.stride;
    __builtin_prefetch(row + kPairTiles);
    __builtin_prefetch(row + from.stride + kPairTiles);
    const auto line = [&](int odd) {
      return 2 * i + odd < from.depth ? get(row + odd * from.stride, from.lines) : F32x16{};
    };
    if (from.lines >= kTileRows && from.depth >= kTileDepth) {
      split_row<true>(load(row), load(row + from.stride), i, to);
    } else {
      split_row<true>(line(0), line(1), i, to);
    }
  }
}

// Packs 32 rows of A, or columns of B, over `depth` k, and fetches those behind them: tiles in the order k, part, half.
// `kAlong`: k along the rows of the source; `kTurned`: what is wanted lies the other way round. Says whether all
// elements can be split.
template <bool kAlong, bool kTurned>
bool pack(const float* from, std::int64_t stride, std::int64_t lines, std::int64_t depth, Bf16* to) {
  F32x16 rest = {};
  for (std::int64_t k = 0; k < depth; k += kTileDepth, to += kStep) {
    for (std::int64_t half = 0; half < 2; ++half) {
      const std::int64_t line = half * kTileRows;
      SplitTile tile;
      tile.rest = F32x16{};
      const Source source{from + (kAlong ? line * stride + k : k * stride + line), stride,
                          std::clamp<std::int64_t>(lines - line, 0, kTileRows), depth - k};
      if (kAlong) {
        split_along(source, tile);
      } else {
        split_across(source, tile);
      }
      rest += tile.rest;
      for (int part = 0; part < kParts; ++part) {
        if (kTurned) transpose(tile.parts[part].rows);
        std::memcpy(to + (2 * part + half) * kTileElements, &tile.parts[part], sizeof(PartTile));
      }
    }
  }
  return reduce_add(rest) == reduce_add(rest);
}

// The products of 32 rows of A and 32 columns of B.
void multiply(const Bf16* a, const Bf16* b, std::int64_t steps, const Output& out) {
  __asm__ volatile("" : : : "memory");  // GCC's tile loads do not say that they read memory
  if (out.addend != nullptr) {
    const float* const lower = out.addend + kTileRows * out.addend_stride;
    const std::int64_t row_bytes = out.addend_stride * 4;
    _tile_loadd(0, out.addend, row_bytes);
    _tile_loadd(1, out.addend + kTileRows, row_bytes);
    _tile_loadd(2, lower, row_bytes);
    _tile_loadd(3, lower + kTileRows, row_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto load_a = [](const Bf16* at) {
    _tile_loadd(4, at, 64);
    _tile_loadd(5, at + kTileElements, 64);
  };
  const auto load_b = [](const Bf16* at) {
    _tile_loadd(6, at, 64);
    _tile_loadd(7, at + kTileElements, 64);
  };
  const auto add = [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  };
  // Two rows of the block to the right, which is next: C lies beyond the second-level cache, its rows far apart.
  const float* next = out.c + kPairTiles;
  const auto fetch = [&next, &out] {
    for (int i = 0; i < 2; ++i, next += out.stride) {
      __builtin_prefetch(next, 1);
      __builtin_prefetch(next + kTileRows, 1);
    }
  };
  constexpr std::int64_t kMiddle = 2 * kTileElements, kLow = 2 * kMiddle;
  // In an order in which one operand alone changes from product to product.
  for (std::int64_t k = 0; k < steps; ++k, a += kStep, b += kStep) {
    load_a(a + kLow);
    load_b(b);
    add();
    fetch();
    load_a(a + kMiddle);
    add();
    fetch();
    load_b(b + kMiddle);
    add();
    fetch();
    load_a(a);
    add();
    fetch();
    load_b(b + kLow);
    add();
    load_b(b);
    add();
  }
  float* const lower = out.c + kTileRows * out.stride;
  const std::int64_t row_bytes = out.stride * 4;
  _tile_stored(0, out.c, row_bytes);
  _tile_stored(1, out.c + kTileRows, row_bytes);
  _tile_stored(2, lower, row_bytes);
  _tile_stored(3, lower + kTileRows, row_bytes);
  __asm__ volatile("" : : : "memory");
}

// The same for fewer rows and columns.
void multiply_edge(const Bf16* a, const Bf16* b, std::int64_t steps, const Output& out, std::int64_t rows,
                   std::int64_t columns) {
  alignas(64) float sums[kPairTiles][kPairTiles];
  const std::size_t bytes = static_cast<std::size_t>(columns) * sizeof(float);
  for (std::int64_t i = 0; i < rows && out.addend != nullptr; ++i) {
    std::memcpy(sums[i], out.addend + i * out.addend_stride, bytes);
  }
  multiply(a, b, steps, {sums[0], kPairTiles, out.addend != nullptr ? sums[0] : nullptr, kPairTiles});
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(out.c + i * out.stride, sums[i], bytes);
}

struct Scratch {
  Bf16* a;
  Bf16* b;
  float* plain;  // for avx512_bf16::gemm
};

// A part of C with its products over `depth` k from `k`.
struct Block {
  GemmRange range;
  std::int64_t k, depth;
  std::int64_t steps() const { return (depth + kTileDepth - 1) / kTileDepth; }
};

bool pack_a(const GemmArgs& args, const Block& block, Bf16* to) {
  const std::int64_t m = block.range.m_begin, rows = block.range.m_end - m;
  if (args.a_transposed) {
    return pack<false, true>(args.a + block.k * args.a_stride + m, args.a_stride, rows, block.depth, to);
  }
  return pack<true, false>(args.a + m * args.a_stride + block.k, args.a_stride, rows, block.depth, to);
}

bool pack_b(const GemmArgs& args, const Block& block, Bf16* to) {
  const std::int64_t n = block.range.n_begin, columns = block.range.n_end - n;
  if (args.b_transposed) {
    return pack<true, true>(args.b + n * args.b_stride + block.k, args.b_stride, columns, block.depth, to);
  }
  return pack<false, false>(args.b + block.k * args.b_stride + n, args.b_stride, columns, block.depth, to);
}

// On vectors: for operands with elements that have no parts (Inf, NaN, above bf16's largest number).
void multiply_plain(const GemmArgs& args, const Block& block, float* scratch) {
  GemmArgs part = args;
  part.a += block.k * (args.a_transposed ? args.a_stride : 1);
  part.b += block.k * (args.b_transposed ? 1 : args.b_stride);
  part.k = block.depth;
  part.accumulate = args.accumulate || block.k > 0;
  if (part.accumulate) part.bias = nullptr;
  avx512_bf16::gemm(part, block.range, scratch);
}

// 32 x 32 elements of C, or fewer at its edges.
void multiply_block(const GemmArgs& args, const Block& block, const Bf16* a, const Bf16* b) {
  const auto [m, m_end, n, n_end] = block.range;
  const Output out = output_at(args, block.k, m, n);
  if (m_end - m == kPairTiles && n_end - n == kPairTiles) {
    multiply(a, b, block.steps(), out);
  } else {
    multiply_edge(a, b, block.steps(), out, m_end - m, n_end - n);
  }
}

// At most kSplitDepth k and kSplitColumns columns.
void multiply_range(const GemmArgs& args, const Block& all, const Scratch& scratch) {
  const auto [m_begin, m_end, n_begin, n_end] = all.range;
  bool b_split[kSplitColumns / kPairTiles];
  const auto block_at = [&](std::int64_t m, std::int64_t n) -> Block {
    return {
        {m, std::min(m + kPairTiles, all.range.m_end), n, std::min(n + kPairTiles, all.range.n_end)}, all.k, all.depth};
  };
  const std::int64_t b_step = all.steps() * kStep;
  Bf16* b = scratch.b;
  for (std::int64_t n = n_begin, j = 0; n < n_end; n += kPairTiles, ++j, b += b_step) {
    b_split[j] = pack_b(args, block_at(m_begin, n), b);
  }
  for (std::int64_t m = m_begin; m < m_end; m += kPairTiles) {
    const bool a_split = pack_a(args, block_at(m, n_begin), scratch.a);
    b = scratch.b;
    for (std::int64_t n = n_begin, j = 0; n < n_end; n += kPairTiles, ++j, b += b_step) {
      if (a_split && b_split[j]) {
        multiply_block(args, block_at(m, n), scratch.a, b);
      } else {
        multiply_plain(args, block_at(m, n), scratch.plain);
      }
    }
  }
}

}  // namespace

void gemm(const GemmArgs& args, const GemmRange& range, float* scratch) {
  if (range.m_begin >= range.m_end || range.n_begin >= range.n_end) return;
  const TileScope scope;
  Bf16* const packed = reinterpret_cast<Bf16*>(scratch + kVectorScratch);
  const Scratch parts{packed, packed + kParts * kSplitDepth * kPairTiles, scratch};
  const std::int64_t depth = block_extent(args.k, kSplitDepth, kPairTiles);
  const std::int64_t width = block_extent(range.n_end - range.n_begin, kSplitColumns, kPairTiles);
  for (std::int64_t n = range.n_begin; n < range.n_end; n += width) {
    for (std::int64_t k = 0; k < args.k; k += depth) {
      multiply_range(
          args, {{range.m_begin, range.m_end, n, std::min(n + width, range.n_end)}, k, std::min(depth, args.k - k)},
          parts);
    }
  }
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
