#pragma once
// C = A B (+ C, + bias) in fp32 for blocks of matrices that do not fit the caches. Goto, van de Geijn: Anatomy of
// High-Performance Matrix Multiplication (2008), section 4: a packed block of B stays in the second-level cache while
// slivers of A pass through the first.
#include <cstdint>

#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

struct GemmArgs {
  const float* a;         ///< [m, k], or [k, m] where a_transposed
  std::int64_t a_stride;  ///< elements from row to row, as stored
  bool a_transposed;
  const float* b;  ///< [k, n], or [n, k] where b_transposed
  std::int64_t b_stride;
  bool b_transposed;
  float* c;  ///< [m, n]; must not overlap a or b
  std::int64_t c_stride;
  std::int64_t k;     ///< at least 1
  bool accumulate;    ///< false: C is overwritten without being read
  const float* bias;  ///< [n] or null, added to each row; null where `accumulate`
};

/// A part of C: rows [m_begin, m_end), columns [n_begin, n_end).
struct GemmRange {
  std::int64_t m_begin, m_end, n_begin, n_end;
};

/// Most rows and columns of a packed block of B (768 KiB), and rows of A packed at a time.
inline constexpr std::int64_t kGemmDepth = 512, kGemmColumns = 384, kGemmRows = 64;
/// The same of a block of B in parts of bf16 (768 KiB); 32 rows of A are packed at a time.
inline constexpr std::int64_t kSplitDepth = 128, kSplitColumns = 1024;
/// Floats of scratch memory for one call of gemm, best aligned to 64 bytes: what the kernels on vectors take, and
/// amx::gemm behind it.
inline constexpr std::int64_t kVectorScratch = kGemmDepth * kGemmColumns + kGemmRows * (kGemmDepth + 16);
inline constexpr std::int64_t kGemmScratch = kVectorScratch + 3 * kSplitDepth * (kSplitColumns + 32) / 2;

GANTRY_ISA_DECLARE(
    /// The elements of C in `range`. Each is summed in an order that depends on k alone, so results are the same for
    /// every way to cut C into ranges.
    void gemm(const GemmArgs& args, const GemmRange& range, float* scratch);)

#if defined(__x86_64__)
namespace amx {
/// The same on AMX tiles: each operand as a sum of three bf16 parts, products of parts summed in fp32, to the accuracy
/// of sums in fp32. Infinity and NaN as in fp32; where there are some, cuts at multiples of 32 give the same results.
/// Operands and sums below 2^-126 are taken as zero, as are the last bits of operands below 2^-110.
void gemm(const GemmArgs& args, const GemmRange& range, float* scratch);
}  // namespace amx
#endif

}  // namespace gantry::kernels
