#include "gantry/kernels/attention/decode_raw.h"
#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

template <class T>
GANTRY_INLINE float dot(const T* a, const T* b, std::int64_t n) {
  F32x16 sum = {};
  for_vectors(n, [&](std::int64_t i, std::int64_t count) { sum += get(a + i, count) * get(b + i, count); });
  return reduce_add(sum);
}

// Turns scores[first, last) into exp(score - max) and returns the sum.
float exponentiate(float* scores, std::int64_t first, std::int64_t last, float maximum) {
  F32x16 sums = {};
  float sum = 0;
  std::int64_t i = first;
  for (; i + kLanes <= last; i += kLanes) {
    const F32x16 value = exp(load(scores + i) - maximum);
    store(scores + i, value);
    sums += value;
  }
  for (; i < last; ++i) {
    scores[i] = __builtin_expf(scores[i] - maximum);
    sum += scores[i];
  }
  return sum + reduce_add(sums);
}

// Weighted sum of value rows, 64 columns at a time so that the sums stay in registers.
template <class T>
void weighted_sum(const float* weights, const T* v, std::int64_t stride, std::int64_t first, std::int64_t last,
                  std::int64_t dim, float factor, T* out) {
  constexpr std::int64_t kBlock = 4 * kLanes;
  for (std::int64_t column = 0; column < dim; column += kBlock) {
    const std::int64_t width = dim - column < kBlock ? dim - column : kBlock;
    F32x16 sums[4] = {};
    if (width == kBlock) {
      for (std::int64_t j = first; j < last; ++j) {
        const T* row = v + j * stride + column;
        for (int part = 0; part < 4; ++part) sums[part] += load(row + part * kLanes) * weights[j];
      }
    } else {
      for (std::int64_t j = first; j < last; ++j) {
        const T* row = v + j * stride + column;
        for_vectors(width,
                    [&](std::int64_t i, std::int64_t count) { sums[i / kLanes] += get(row + i, count) * weights[j]; });
      }
    }
    for_vectors(width,
                [&](std::int64_t i, std::int64_t count) { set(out + column + i, sums[i / kLanes] * factor, count); });
  }
}

}  // namespace

template <class T>
void decode_attention(const DecodeAttentionArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t dim = args.head_dim;
  const std::int64_t group = args.heads / args.kv_heads;
  const std::int64_t stride = args.kv_heads * dim;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t head = item % args.heads;
    const std::int64_t token = item / args.heads % args.tokens;
    const std::int64_t batch = item / (args.heads * args.tokens);
    const T* q = args.q + (batch * args.tokens + token) * args.q_stride + head * dim;
    const std::int64_t cache_offset = batch * args.capacity * stride + head / group * dim;
    const T* k = args.k + cache_offset;
    const std::int64_t first = args.starts == nullptr ? 0 : args.starts[batch];
    const std::int64_t last = args.length - args.tokens + token + 1;
    T* out = args.out + item * dim;
    if (first >= last) {  // nothing to attend to: defined as zero
      std::memset(static_cast<void*>(out), 0, static_cast<std::size_t>(dim) * sizeof(T));
      continue;
    }
    float maximum = -__builtin_inff();
    for (std::int64_t j = first; j < last; ++j) {
      const float score = dot(q, k + j * stride, dim) * args.scale;
      args.scratch[j] = score;
      maximum = score > maximum ? score : maximum;
    }
    const float sum = exponentiate(args.scratch, first, last, maximum);
    weighted_sum(args.scratch, args.v + cache_offset, stride, first, last, dim, 1.0f / sum, out);
  }
}

template void decode_attention<float>(const DecodeAttentionArgs<float>&, std::int64_t, std::int64_t);
template void decode_attention<Bf16>(const DecodeAttentionArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
