#include <type_traits>

#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

// Lane by lane; a NaN may be lost here and is found by the sum of exponentials.
template <class T>
float row_maximum(const T* x, std::int64_t n) {
  F32x16 maximum = splat(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) maximum = max(maximum, load(x + i));
  float peak = reduce_max(maximum);
  for (; i < n; ++i) peak = to_float(x[i]) > peak ? to_float(x[i]) : peak;
  return peak;
}

struct RowSums {
  float exponentials = 0;  // of exp(logit - maximum)
  float distances = 0;     // of logit - maximum
};

// `kKeep` leaves the exponentials in place of the logits, `kDistances` fills both sums.
template <bool kKeep, bool kDistances, class T>
RowSums row_sums(T* x, std::int64_t n, float maximum) {
  F32x16 exponentials = {}, distances = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const F32x16 distance = load(x + i) - maximum, value = exp(distance);
    exponentials += value;
    if constexpr (kDistances) distances += distance;
    if constexpr (kKeep) store(x + i, value);
  }
  RowSums sums{reduce_add(exponentials), reduce_add(distances)};
  if (i == n) return sums;
  const F32x16 distance = load_partial(x + i, n - i) - maximum, value = exp(distance);
  for (std::int64_t j = 0; j < n - i; ++j) {
    sums.exponentials += value[j];
    if constexpr (kDistances) sums.distances += distance[j];
  }
  if constexpr (kKeep) store_partial(x + i, value, n - i);
  return sums;
}

// Sixteen-bit logits keep their place: an exponential rounded to them would be rounded twice.
template <class T>
constexpr bool kKeepsExponentials = std::is_same_v<T, float>;

template <class T>
RowSums row_sums(const CrossEntropyArgs<T>& args, T* x, float maximum) {
  const bool keep = kKeepsExponentials<T> && args.scale != 0, distances = args.label_smoothing != 0;
  if (keep && distances) return row_sums<true, true>(x, args.vocab, maximum);
  if (keep) return row_sums<true, false>(x, args.vocab, maximum);
  if (distances) return row_sums<false, true>(x, args.vocab, maximum);
  return row_sums<false, false>(x, args.vocab, maximum);
}

template <class T>
void row(const CrossEntropyArgs<T>& args, T* x, std::int64_t label, float* loss) {
  const std::int64_t n = args.vocab;
  const float maximum = row_maximum(x, n), label_distance = to_float(x[label]) - maximum;
  const RowSums sums = row_sums(args, x, maximum);
  const float log_sum = __builtin_logf(sums.exponentials), lse = maximum + log_sum;
  *loss = log_sum - label_distance;
  if (args.label_smoothing != 0) {
    // Never smoothing * distance alone: that would be 0 * infinity for a hidden label and no smoothing.
    const float mean = sums.distances / static_cast<float>(n);
    *loss = log_sum - (1.0f - args.label_smoothing) * label_distance - args.label_smoothing * mean;
  }
  if (args.z_loss != 0) *loss += args.z_loss * lse * lse;
  if (args.scale == 0) return;
  const float slope = args.z_loss != 0 ? 1.0f + 2.0f * args.z_loss * lse : 1.0f;
  const float factor = args.scale * slope / sums.exponentials;
  const float uniform = args.label_smoothing / static_cast<float>(n);
  for_vectors(n, [&](std::int64_t i, std::int64_t count) {
    F32x16 value = get(x + i, count);
    if constexpr (!kKeepsExponentials<T>) value = exp(value - maximum);
    set(x + i, value * factor - uniform * args.scale, count);
  });
  // The label's entry from the exact logit, not from a rounded probability.
  const float probability = __builtin_expf(label_distance) / sums.exponentials;
  from_float(x + label, (probability * slope - (1.0f - args.label_smoothing) - uniform) * args.scale);
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    T* x = args.logits + i * args.vocab;
    if (args.labels[i] >= 0) {
      row(args, x, args.labels[i], args.losses + i);
      continue;
    }
    args.losses[i] = 0;
    if (args.scale != 0) std::memset(static_cast<void*>(x), 0, static_cast<std::size_t>(args.vocab) * sizeof(T));
  }
}

template void cross_entropy<float>(const CrossEntropyArgs<float>&, std::int64_t, std::int64_t);
template void cross_entropy<Bf16>(const CrossEntropyArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
