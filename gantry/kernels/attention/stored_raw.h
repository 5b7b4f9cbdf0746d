#pragma once
// Attention that keeps its probabilities for the backward pass and, in their sign bits, what dropout dropped. Method:
// Tempo (Andoorveedu et al., NeurIPS 2022) keeps probabilities and a byte mask; the sign bit of a number that is never
// negative needs no bytes.
#include "gantry/kernels/attention/flash_raw.h"

namespace gantry::kernels {

template <class T>
struct StoredForwardArgs {
  FlashShape shape;
  HeadView<const T> q, k, v;
  HeadView<T> out;
  T* p;            ///< [batch, heads, q_length, k_length] probabilities; sign bit set (-0 included): dropped
  float* scratch;  ///< stored_forward_scratch() floats for this call
};

template <class T>
struct StoredBackwardArgs {
  static constexpr bool kNeedsKeys = false;
  FlashShape shape;
  HeadView<const T> q, k, v, out, dout;
  const T* p;
  HeadView<T> dq, dk, dv;
  float* scratch;            ///< flash_backward_scratch() floats for this call
  float* dscores = nullptr;  ///< as in FlashBackwardArgs
};

/// As for flash_forward, with the scores of a query tile for all keys.
inline std::int64_t stored_forward_scratch(const FlashShape& shape) {
  return flash_padded_keys(shape) * (2 * shape.head_dim + kFlashQueryTile) + 2 * kFlashQueryTile * shape.head_dim;
}

GANTRY_ISA_DECLARE(
    /// Items [begin, end) of the flattened (batch, head) order. The output is made of the probabilities as stored in T.
    template <class T> void stored_forward(const StoredForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
    /// Items [begin, end) of the flattened (batch, kv_head) order.
    template <class T> void stored_backward(const StoredBackwardArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
