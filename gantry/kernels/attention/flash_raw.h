#pragma once
// Tiled attention for training and prefill: scores never exist beyond a tile; the backward pass recomputes them from
// the log-sum-exp, and the dropout mask from the elements' positions. Method: FlashAttention-2, Dao 2023, algorithms 1
// and 2.
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/dropout_rule.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// Element (b, t, h, d) of a tensor is at data + b * batch + t * token + h * head + d.
template <class T>
struct HeadView {
  T* data;
  std::int64_t batch;
  std::int64_t token;
  std::int64_t head;
};

/// What is added to the score of (b, h, t, j): element b * batch + h * head + t * query + j of `added`, where values of
/// -1e30 and less hide the key; or, if `visible` is given, minus infinity where its element is 0. Strides may be 0.
struct ScoreMask {
  const float* added = nullptr;
  const std::uint8_t* visible = nullptr;
  std::int64_t batch = 0, head = 0, query = 0;
};

inline constexpr float kHiddenScore = -1e30f;

struct FlashShape {
  std::int64_t batch;
  std::int64_t q_length;
  std::int64_t k_length;
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_dim;  ///< a multiple of 16
  float scale;
  bool causal;                     ///< query t sees keys up to k_length - q_length + t
  const std::int32_t* row_starts;  ///< [batch, q_length] first visible key of each query, or null
  const std::uint8_t* key_mask;    ///< [batch, k_length] 0 hides a key, or null
  ScoreMask mask = {};
  DropoutRule dropout = {};  ///< of probabilities; element (b, h, t, j) has position 8 * attention_block() + j
};

/// Block of dropout bits where the row of query t of head h begins: rows are padded to whole blocks of 8 keys.
inline std::uint64_t attention_block(const FlashShape& shape, std::int64_t b, std::int64_t h, std::int64_t t) {
  return static_cast<std::uint64_t>((b * shape.heads + h) * shape.q_length + t) *
         static_cast<std::uint64_t>((shape.k_length + 7) / 8);
}

template <class T>
struct FlashForwardArgs {
  FlashShape shape;
  HeadView<const T> q, k, v;
  HeadView<T> out;
  float* lse;  ///< [batch, heads, q_length]; -infinity where a query sees nothing (its output is zero). Null: in the
               ///< last bits of each head's first 32 outputs (cpu/last_bits.h), for T = float and head_dim >= 32
  float* scratch;  ///< flash_forward_scratch() floats for this call
};

template <class T>
struct FlashBackwardArgs {
  static constexpr bool kNeedsKeys = true;  ///< recomputes the scores
  FlashShape shape;
  HeadView<const T> q, k, v, out, dout;
  const float* lse;  ///< as forward wrote it; null: in `out`
  HeadView<T> dq, dk, dv;
  float* scratch;            ///< flash_backward_scratch() floats for this call
  float* dscores = nullptr;  ///< [batch, heads, q_length, k_length] gradient of what was added to the
                             ///< scores, or null; what no query sees is left alone
};

inline constexpr std::int64_t kFlashQueryTile = 48;
inline constexpr std::int64_t kFlashKeyTile = 64;

inline std::int64_t flash_padded_keys(const FlashShape& shape) {
  return (shape.k_length + kFlashKeyTile - 1) / kFlashKeyTile * kFlashKeyTile;
}

/// Transposed keys and the values of one head, a score tile, an output tile and a query tile.
inline std::int64_t flash_forward_scratch(const FlashShape& shape) {
  return 2 * flash_padded_keys(shape) * shape.head_dim + kFlashQueryTile * (kFlashKeyTile + 2 * shape.head_dim + 4);
}

/// Keys and values both ways round, their gradients, dq of one head, two tiles, and query-side tiles.
inline std::int64_t flash_backward_scratch(const FlashShape& shape) {
  return 6 * flash_padded_keys(shape) * shape.head_dim + shape.q_length * (3 * shape.head_dim + 2) +
         2 * kFlashQueryTile * kFlashKeyTile;
}

GANTRY_ISA_DECLARE(
    /// Items [begin, end) of the flattened (batch, head) order.
    template <class T> void flash_forward(const FlashForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
    /// Items [begin, end) of the flattened (batch, kv_head) order: the query heads of a group add to one dk and dv.
    template <class T> void flash_backward(const FlashBackwardArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
