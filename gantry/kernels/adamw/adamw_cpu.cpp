#include "gantry/kernels/adamw/adamw_raw.h"
#include "gantry/kernels/cpu/simd.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

typedef std::int16_t I16x16 __attribute__((vector_size(32)));

GANTRY_INLINE F32x16 sqrt16(F32x16 x) {
  F32x16 result;
  for (int i = 0; i < kLanes; ++i) result[i] = __builtin_sqrtf(x[i]);
  return result;
}

GANTRY_INLINE F32x16 updated(F32x16 weight, F32x16 gradient, float* first, float* second, const AdamwStep& step,
                             std::int64_t count) {
  gradient *= step.gradient_scale;
  const F32x16 m = get(first, count) * step.beta1 + gradient * (1.0f - step.beta1);
  const F32x16 v = get(second, count) * step.beta2 + gradient * gradient * (1.0f - step.beta2);
  set(first, m, count);
  set(second, v, count);
  const F32x16 denominator = sqrt16(v / step.bias_correction2) + step.eps;
  const F32x16 decayed = weight * (1.0f - step.learning_rate * step.weight_decay);
  return decayed - (step.learning_rate / step.bias_correction1) * (m / denominator);
}

GANTRY_INLINE F32x16 join(const Bf16* weight, const std::int16_t* remainder, std::int64_t count) {
  I16x16 low = {};
  std::memcpy(&low, remainder, static_cast<std::size_t>(count) * sizeof(*remainder));
  const I32x16 high = reinterpret_cast<I32x16>(get(weight, count));
  return reinterpret_cast<F32x16>(high + __builtin_convertvector(low, I32x16));
}

GANTRY_INLINE void split(F32x16 master, Bf16* weight, std::int16_t* remainder, std::int64_t count) {
  const U32x16 bits = reinterpret_cast<U32x16>(master);
  // Rounding half up keeps the remainder within a signed 16-bit number; infinity rounds to itself because its low half
  // is zero. A NaN's low half could carry into the sign, so it becomes the quiet NaN.
  const U32x16 is_nan = reinterpret_cast<U32x16>((bits & 0x7fffffffu) > 0x7f800000u);
  const U32x16 clean = (bits & ~is_nan) | (is_nan & 0x7fc00000u);
  const U32x16 high = (clean + 0x8000u) & 0xffff0000u;
  store_partial(weight, reinterpret_cast<F32x16>(high), count);
  const I16x16 low = __builtin_convertvector(reinterpret_cast<I32x16>(clean - high), I16x16);
  std::memcpy(remainder, &low, static_cast<std::size_t>(count) * sizeof(*remainder));
}

}  // namespace

void adamw(const AdamwArgs& args, const AdamwStep& step, std::int64_t begin, std::int64_t end) {
  for_vectors(end - begin, [&](std::int64_t offset, std::int64_t count) {
    const std::int64_t i = begin + offset;
    const F32x16 weight = updated(get(args.weight + i, count), get(args.gradient + i, count), args.first + i,
                                  args.second + i, step, count);
    set(args.weight + i, weight, count);
  });
}

template <class Gradient>
void adamw_split(const AdamwSplitArgs<Gradient>& args, const AdamwStep& step, std::int64_t begin, std::int64_t end) {
  for_vectors(end - begin, [&](std::int64_t offset, std::int64_t count) {
    const std::int64_t i = begin + offset;
    const F32x16 master = updated(join(args.weight + i, args.remainder + i, count), get(args.gradient + i, count),
                                  args.first + i, args.second + i, step, count);
    split(master, args.weight + i, args.remainder + i, count);
  });
}

template <class T>
double sum_of_squares(const T* x, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kBlock = 4096;
  double total = 0;
  for (std::int64_t start = begin; start < end; start += kBlock) {
    const std::int64_t length = end - start < kBlock ? end - start : kBlock;
    F32x16 sums = {};
    for_vectors(length, [&](std::int64_t i, std::int64_t count) {
      const F32x16 value = get(x + start + i, count);
      sums += value * value;
    });
    total += static_cast<double>(reduce_add(sums));
  }
  return total;
}

void split_master(const float* master, Bf16* weight, std::int16_t* remainder, std::int64_t begin, std::int64_t end) {
  for_vectors(end - begin, [&](std::int64_t offset, std::int64_t count) {
    const std::int64_t i = begin + offset;
    split(get(master + i, count), weight + i, remainder + i, count);
  });
}

void join_master(const Bf16* weight, const std::int16_t* remainder, float* master, std::int64_t begin,
                 std::int64_t end) {
  for_vectors(end - begin, [&](std::int64_t offset, std::int64_t count) {
    const std::int64_t i = begin + offset;
    set(master + i, join(weight + i, remainder + i, count), count);
  });
}

template void adamw_split<float>(const AdamwSplitArgs<float>&, const AdamwStep&, std::int64_t, std::int64_t);
template void adamw_split<Bf16>(const AdamwSplitArgs<Bf16>&, const AdamwStep&, std::int64_t, std::int64_t);
template double sum_of_squares<float>(const float*, std::int64_t, std::int64_t);
template double sum_of_squares<Bf16>(const Bf16*, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
