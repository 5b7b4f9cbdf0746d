#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/linear/linear_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

// One step of 32 bf16 weights: the high and the low halves of sixteen 32-bit words are the odd and even elements.
struct WeightPair {
  F32x16 even, odd;
};

GANTRY_INLINE WeightPair load_pair(const Bf16* w) {
  U32x16 words;
  std::memcpy(&words, w, sizeof(words));
  return {reinterpret_cast<F32x16>(words << 16), reinterpret_cast<F32x16>(words & 0xffff0000u)};
}

GANTRY_INLINE WeightPair load_pair(const float* w) { return {load(w), load(w + kLanes)}; }

// Where the partner of x[i] in `even` order lies: behind all even elements for bf16, 16 further for fp32.
template <class T>
GANTRY_INLINE const float* odd_of(const float* x, std::int64_t k);
template <>
GANTRY_INLINE const float* odd_of<Bf16>(const float* x, std::int64_t k) {
  return x + (k + 1) / 2;
}
template <>
GANTRY_INLINE const float* odd_of<float>(const float* x, std::int64_t) {
  return x + kLanes;
}

template <class T>
inline constexpr std::int64_t kStep = 1;  // advance of x (in its own order) per 32 weights
template <>
inline constexpr std::int64_t kStep<Bf16> = kLanes;
template <>
inline constexpr std::int64_t kStep<float> = 2 * kLanes;

template <class T>
GANTRY_INLINE float tail_dot(const float* x, const T* w, std::int64_t from, std::int64_t k);
template <>
GANTRY_INLINE float tail_dot<Bf16>(const float* x, const Bf16* w, std::int64_t from, std::int64_t k) {
  const std::int64_t evens = (k + 1) / 2;
  float sum = 0;
  for (std::int64_t i = from; i < k; ++i) sum += to_float(w[i]) * x[(i & 1) ? evens + i / 2 : i / 2];
  return sum;
}
template <>
GANTRY_INLINE float tail_dot<float>(const float* x, const float* w, std::int64_t from, std::int64_t k) {
  float sum = 0;
  for (std::int64_t i = from; i < k; ++i) sum += w[i] * x[i];
  return sum;
}

// One weight row times kRows inputs. Weight rows are read one after the other, so the whole matrix is a single linear
// stream: short rows read several at a time would restart the hardware prefetcher at each row. The prefetch reaches
// over page boundaries, where that one stops. kUnroll steps at a time keep enough independent sums in flight.
template <class T, int kRows>
GANTRY_INLINE void weight_row(const SmallLinearArgs<T>& args, std::int64_t row, std::int64_t column) {
  constexpr int kUnroll = kRows == 1 ? 4 : (kRows == 2 ? 2 : 1);
  constexpr std::int64_t kAheadBytes = 4096;
  const std::int64_t k = args.k;
  const T* w = args.w + column * k;
  const float* x = args.x + row * k;
  F32x16 sums[kRows][2 * kUnroll] = {};
  const std::int64_t steps = k / (2 * kLanes);
  const auto multiply = [&](std::int64_t step, int slot) __attribute__((always_inline)) {
    const T* at = w + step * 2 * kLanes;
    __builtin_prefetch(reinterpret_cast<const char*>(at) + kAheadBytes);
    if constexpr (sizeof(T) == 4) __builtin_prefetch(reinterpret_cast<const char*>(at + kLanes) + kAheadBytes);
    const WeightPair pair = load_pair(at);
    for (int r = 0; r < kRows; ++r) {
      const float* input = x + r * k + step * kStep<T>;
      sums[r][2 * slot] += load(input) * pair.even;
      sums[r][2 * slot + 1] += load(odd_of<T>(input, k)) * pair.odd;
    }
  };
  std::int64_t step = 0;
  for (; step + kUnroll <= steps; step += kUnroll) {
    for (int u = 0; u < kUnroll; ++u) multiply(step + u, u);
  }
  for (; step < steps; ++step) multiply(step, 0);
  for (int r = 0; r < kRows; ++r) {
    F32x16 total = sums[r][0];
    for (int i = 1; i < 2 * kUnroll; ++i) total += sums[r][i];
    float sum = reduce_add(total) + tail_dot<T>(x + r * k, w, steps * 2 * kLanes, k);
    if (args.bias != nullptr) sum += to_float(args.bias[column]);
    from_float(args.y + (row + r) * args.y_stride + column, sum);
  }
}

template <class T, int kRows>
void rows_block(const SmallLinearArgs<T>& args, std::int64_t row, std::int64_t begin, std::int64_t end) {
  for (std::int64_t column = begin; column < end; ++column) weight_row<T, kRows>(args, row, column);
}

}  // namespace

template <class T>
void small_linear(const SmallLinearArgs<T>& args, std::int64_t begin, std::int64_t end) {
  std::int64_t row = 0;
  for (; row + 8 <= args.rows; row += 8) rows_block<T, 8>(args, row, begin, end);
  for (; row + 4 <= args.rows; row += 4) rows_block<T, 4>(args, row, begin, end);
  for (; row + 2 <= args.rows; row += 2) rows_block<T, 2>(args, row, begin, end);
  if (row < args.rows) rows_block<T, 1>(args, row, begin, end);
}

template <>
void deinterleave<float>(const float* x, std::int64_t k, float* to) {
  std::memcpy(to, x, static_cast<std::size_t>(k) * sizeof(float));
}

template <>
void deinterleave<Bf16>(const Bf16* x, std::int64_t k, float* to) {
  const std::int64_t evens = (k + 1) / 2;
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes) {
    const WeightPair pair = load_pair(x + i);
    store(to + i / 2, pair.even);
    store(to + evens + i / 2, pair.odd);
  }
  for (; i < k; ++i) to[(i & 1) ? evens + i / 2 : i / 2] = to_float(x[i]);
}

template void small_linear<float>(const SmallLinearArgs<float>&, std::int64_t, std::int64_t);
template void small_linear<Bf16>(const SmallLinearArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
