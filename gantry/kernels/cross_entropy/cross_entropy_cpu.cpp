#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

struct RowStatistics {
  float maximum;
  float sum;  // of exp(logit - maximum)
};

// The running maximum is per lane; lanes are brought to a common maximum at the end (online softmax).
template <class T>
RowStatistics row_statistics(const T* x, std::int64_t n) {
  F32x16 maximum = splat(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) maximum = max(maximum, load(x + i));
  float peak = reduce_max(maximum);
  for (; i < n; ++i) peak = to_float(x[i]) > peak ? to_float(x[i]) : peak;
  F32x16 sums = {};
  for (i = 0; i + kLanes <= n; i += kLanes) sums += exp(load(x + i) - peak);
  float sum = reduce_add(sums);
  if (i < n) {
    const F32x16 rest = exp(load_partial(x + i, n - i) - peak);
    for (std::int64_t j = 0; j < n - i; ++j) sum += rest[j];
  }
  return {peak, sum};
}

}  // namespace

template <class T>
void cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.vocab;
  for (std::int64_t row = begin; row < end; ++row) {
    T* x = args.logits + row * n;
    const std::int64_t label = args.labels[row];
    if (label < 0) {
      args.losses[row] = 0;
      if (args.scale != 0) std::memset(static_cast<void*>(x), 0, static_cast<std::size_t>(n) * sizeof(T));
      continue;
    }
    const RowStatistics row_stats = row_statistics(x, n);
    const float label_logit = to_float(x[label]);
    args.losses[row] = row_stats.maximum - label_logit + __builtin_logf(row_stats.sum);
    if (args.scale == 0) continue;
    const float factor = args.scale / row_stats.sum;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      set(x + i, exp(get(x + i, count) - row_stats.maximum) * factor, count);
    });
    // The label's entry from the exact logit, not from a rounded probability.
    const float probability = __builtin_expf(label_logit - row_stats.maximum) / row_stats.sum;
    from_float(x + label, (probability - 1.0f) * args.scale);
  }
}

template void cross_entropy<float>(const CrossEntropyArgs<float>&, std::int64_t, std::int64_t);
template void cross_entropy<Bf16>(const CrossEntropyArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
