#pragma once
// How the kernels of gemm_raw.h cut a product into blocks, and where sums go. Only gemm_*cpu.cpp files include it.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/gemm/gemm_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

/// Where the sums of a tile go; `addend` (null: nothing to add) has the tile's shape, with stride 0 for a bias.
struct Output {
  float* c;
  std::int64_t stride;
  const float* addend;
  std::int64_t addend_stride;
};

/// For the tile at row m and column n, of products from `k_begin` on.
inline Output output_at(const GemmArgs& args, std::int64_t k_begin, std::int64_t m, std::int64_t n) {
  float* const c = args.c + m * args.c_stride + n;
  if (args.accumulate || k_begin > 0) return {c, args.c_stride, c, args.c_stride};
  return {c, args.c_stride, args.bias != nullptr ? args.bias + n : nullptr, 0};
}

/// The extent of blocks as equal as possible, at most `limit`, in multiples of `unit`.
inline std::int64_t block_extent(std::int64_t extent, std::int64_t limit, std::int64_t unit) {
  const std::int64_t count = (extent + limit - 1) / limit;
  return ((extent + count - 1) / count + unit - 1) / unit * unit;
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
