#pragma once
// Tiled attention whose products take bf16 operands: queries, keys, values and the incoming gradient as they are, the
// probabilities and the gradient of the scores rounded once before their second product, as PyTorch's operators do.
// Sums, softmax, log-sums and masks are fp32. Same contract as flash_forward and flash_backward otherwise.
//
// Method: FlashAttention-2, Dao 2023, algorithms 1 and 2; the backward pass walks over keys outside and queries inside.
#include <type_traits>
#include <utility>

#include "gantry/kernels/attention/flash_raw.h"

namespace gantry::kernels {

inline constexpr std::int64_t kForwardQueries = 64;    ///< query rows of a tile of the forward pass
inline constexpr std::int64_t kForwardKeys = 256;      ///< and its keys
inline constexpr std::int64_t kBackwardQueries = 128;  ///< the same of the backward pass
inline constexpr std::int64_t kBackwardKeys = 128;
inline constexpr std::int64_t kStripQueries = 32;  ///< rows whose scores exist in fp32 at a time in the backward pass
inline constexpr std::int64_t kScorePad = 16;  ///< floats behind a row of scores, so that rows meet in no set of the
                                               ///< cache; twice as many bf16 elements

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Where the parts of a scratch area begin, in floats from a multiple of 64 bytes.
struct FlashBf16Forward {
  std::int64_t keys_t;   ///< tiles of B for the scores, bf16
  std::int64_t values;   ///< tiles of B for the output, bf16
  std::int64_t rows;     ///< [32, head_dim in whole tiles], bf16, on the way into tiles
  std::int64_t q;        ///< [kForwardQueries, head_dim in whole tiles], bf16
  std::int64_t p;        ///< [kForwardQueries, kForwardKeys + 2 kScorePad], bf16
  std::int64_t scores;   ///< [kForwardQueries, kForwardKeys + kScorePad]
  std::int64_t out;      ///< [kForwardQueries, head_dim]
  std::int64_t maximum;  ///< [kForwardQueries]
  std::int64_t sum;      ///< [kForwardQueries]
  std::int64_t total;
};

struct FlashBf16Backward {
  std::int64_t keys_t, values_t;   ///< tiles of B for the scores and for dout.v, bf16
  std::int64_t keys;               ///< tiles of B for dq, bf16
  std::int64_t rows, pairs;        ///< [32, head_dim in whole tiles], bf16, on the way into tiles
  std::int64_t dk, dv;             ///< transposed tiles of C
  std::int64_t q, dout;            ///< [q_length, head_dim], both in whole tiles, bf16
  std::int64_t q_t, dout_t;        ///< transposed tiles of A, bf16
  std::int64_t dq;                 ///< tiles of C
  std::int64_t delta, lse;         ///< [q_length in whole tiles]; log-sums to base 2
  std::int64_t scores, dp;         ///< [kStripQueries, kBackwardKeys + kScorePad]
  std::int64_t p_tiles, ds_tiles;  ///< tiles of B, bf16
  std::int64_t ds;                 ///< [kBackwardQueries, kBackwardKeys + 2 kScorePad], bf16
  std::int64_t total;
};

inline FlashBf16Forward flash_bf16_forward_layout(const FlashShape& s) {
  const std::int64_t wide = round_up(s.head_dim, 32), keys = round_up(s.k_length, 32);
  FlashBf16Forward at{};
  std::int64_t next = 0;
  const auto take = [&next](std::int64_t floats) { return std::exchange(next, next + round_up(floats, 16)); };
  at.keys_t = take(keys * wide / 2);
  at.values = take(keys * s.head_dim / 2);
  at.rows = take(32 * wide / 2);
  at.q = take(kForwardQueries * wide / 2);
  at.p = take(kForwardQueries * (kForwardKeys + 2 * kScorePad) / 2);
  at.scores = take(kForwardQueries * (kForwardKeys + kScorePad));
  at.out = take(kForwardQueries * s.head_dim);
  at.maximum = take(kForwardQueries);
  at.sum = take(kForwardQueries);
  at.total = next;
  return at;
}

inline FlashBf16Backward flash_bf16_backward_layout(const FlashShape& s) {
  const std::int64_t dim = s.head_dim, wide = round_up(dim, 32);
  const std::int64_t keys = round_up(s.k_length, 32), queries = round_up(s.q_length, 32);
  FlashBf16Backward at{};
  std::int64_t next = 0;
  const auto take = [&next](std::int64_t floats) { return std::exchange(next, next + round_up(floats, 16)); };
  at.keys_t = take(keys * wide / 2);
  at.values_t = take(keys * wide / 2);
  at.keys = take(keys * dim / 2);
  at.rows = take(32 * wide / 2);
  at.pairs = take(32 * wide / 2);
  at.dk = take(keys * dim);
  at.dv = take(keys * dim);
  at.q = take(queries * wide / 2);
  at.dout = take(queries * wide / 2);
  at.q_t = take(queries * dim / 2);
  at.dout_t = take(queries * dim / 2);
  at.dq = take(queries * dim);
  at.delta = take(queries);
  at.lse = take(queries);
  at.scores = take(kStripQueries * (kBackwardKeys + kScorePad));
  at.dp = take(kStripQueries * (kBackwardKeys + kScorePad));
  at.p_tiles = take(kBackwardQueries * kBackwardKeys / 2);
  at.ds_tiles = take(kBackwardQueries * kBackwardKeys / 2);
  at.ds = take(kBackwardQueries * (kBackwardKeys + 2 * kScorePad) / 2);
  at.total = next;
  return at;
}

/// Floats of scratch for one call; 15 of them to begin at a multiple of 64 bytes.
inline std::int64_t flash_bf16_forward_scratch(const FlashShape& s) { return flash_bf16_forward_layout(s).total + 15; }
inline std::int64_t flash_bf16_backward_scratch(const FlashShape& s) {
  return flash_bf16_backward_layout(s).total + 15;
}

GANTRY_BF16_ISA_DECLARE(
    /// Items [begin, end) of the flattened (batch, head) order; scratch has flash_bf16_forward_scratch() floats.
    void flash_forward_bf16(const FlashForwardArgs<Bf16>& args, std::int64_t begin, std::int64_t end);
    /// Items [begin, end) of the flattened (batch, kv_head) order; scratch has flash_bf16_backward_scratch() floats.
    void flash_backward_bf16(const FlashBackwardArgs<Bf16>& args, std::int64_t begin, std::int64_t end);)

/// A kernel and the floats of scratch that a call of it takes.
template <class Args>
struct ScratchKernel {
  void (*run)(const Args& args, std::int64_t begin, std::int64_t end);
  std::int64_t scratch;
};

/// True where bf16 products are to be faster than fp32 ones on converted operands: AMX, and AMD's dot products of
/// AVX512-BF16, which take as long as an fp32 product of half as many terms. Intel's take nearly twice as long, and
/// attention made of them 1.25 times as long as in fp32.
inline bool bf16_products_pay() {
#if defined(__x86_64__)
  return base::isa() == base::Isa::kAmx || __builtin_cpu_is("amd");
#else
  return false;
#endif
}

/// The forward pass for T on base::isa(): bf16 products where the processor has them and they pay.
template <class T>
ScratchKernel<FlashForwardArgs<T>> flash_forward_kernel(const FlashShape& shape) {
  if constexpr (std::is_same_v<T, Bf16>) {
    if (const auto kernel = GANTRY_BF16_ISA_SELECT(flash_forward_bf16); kernel != nullptr && bf16_products_pay()) {
      return {kernel, flash_bf16_forward_scratch(shape)};
    }
  }
  return {GANTRY_ISA_SELECT(flash_forward<T>), flash_forward_scratch(shape)};
}

/// The backward pass likewise.
template <class T>
ScratchKernel<FlashBackwardArgs<T>> flash_backward_kernel(const FlashShape& shape) {
  if constexpr (std::is_same_v<T, Bf16>) {
    if (const auto kernel = GANTRY_BF16_ISA_SELECT(flash_backward_bf16); kernel != nullptr && bf16_products_pay()) {
      return {kernel, flash_bf16_backward_scratch(shape)};
    }
  }
  return {GANTRY_ISA_SELECT(flash_backward<T>), flash_backward_scratch(shape)};
}

}  // namespace gantry::kernels
