#pragma once
// Attention of a few new tokens over a key/value cache: the memory-bound case of decoding.
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

template <class T>
struct DecodeAttentionArgs {
  const T* q;  ///< query of (batch b, token t, head h) at q + (b * tokens + t) * q_stride + h * head_dim
  std::int64_t q_stride;
  const T* k;           ///< [batch, capacity, kv_heads, head_dim]
  const T* v;           ///< [batch, capacity, kv_heads, head_dim]
  T* out;               ///< [batch, tokens, heads, head_dim]
  std::int64_t tokens;  ///< new tokens per sequence
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_dim;
  std::int64_t capacity;
  std::int64_t length;         ///< keys in the cache, the new tokens' included; token t sees length - tokens + t + 1
  const std::int64_t* starts;  ///< [batch] first key that counts (left padding), or null
  float scale;
  float* scratch;  ///< [length] per calling thread
};

GANTRY_ISA_DECLARE(
    /// Items [begin, end) of the flattened (batch, token, head) order.
    template <class T> void decode_attention(const DecodeAttentionArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
