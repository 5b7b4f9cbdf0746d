// Method: layer normalisation (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019), differentiated from the output
// (Tempo, NeurIPS 2022). With xhat = (y - bias) / weight and g = weight * dy:
//   dv = rstd * (g - mean(g) - xhat * mean(g * xhat)),  dweight = sum over rows of dy * xhat,  dbias = that of dy;
// RMS norm lacks the mean(g) term.
#include <type_traits>
#include <vector>

#include "gantry/kernels/cpu/philox.h"
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/inplace_norm/inplace_norm_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

GANTRY_INLINE F32x16 first_lanes(F32x16 value, std::int64_t count) {
  const I32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < static_cast<std::int32_t>(count) ? value : F32x16{};
}

// Sum of term(offset, count) over a row in four chains, so that the latency of an addition does not bound it.
template <class Term>
GANTRY_INLINE float sum_row(std::int64_t n, Term term) {
  F32x16 sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) sums[k] += term(i + k * kLanes, std::int64_t{kLanes});
  }
  for (; i + kLanes <= n; i += kLanes) sums[0] += term(i, std::int64_t{kLanes});
  if (i < n) sums[0] += first_lanes(term(i, n - i), n - i);
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// What the dropout multiplies a row with.
class KeptRow {
 public:
  KeptRow(const DropoutRule& rule, std::int64_t n)
      : rule_(rule), scale_(keep_scale(rule.threshold)), bits_(drops() ? static_cast<std::size_t>(n / 8 + 3) : 0) {}

  bool drops() const { return rule_.threshold != 0; }
  void draw(std::int64_t row, std::int64_t n) {
    if (drops()) philox_keep_bits(rule_, static_cast<std::uint64_t>(row * n), n, bits_.data());
  }
  /// Of elements i to i + 15; i is a multiple of 16.
  GANTRY_INLINE F32x16 factors(std::int64_t i) const {
    return keep_factors(keep_bits_at(bits_.data() + i / 8), scale_);
  }
  float factor(std::int64_t i) const {
    return ((bits_[static_cast<std::size_t>(i / 8)] >> (i % 8)) & 1) != 0 ? scale_ : 0.0f;
  }

 private:
  DropoutRule rule_;
  float scale_;
  std::vector<std::uint8_t> bits_;
};

// The row that is normalised, in fp32: in place where it is stored so, else in `buffer`.
template <class T>
const float* input_row(const InplaceNormForwardArgs<T>& args, std::int64_t row, float* buffer, KeptRow& kept) {
  const std::int64_t n = args.n;
  const T* x = args.x + row * n;
  if constexpr (std::is_same_v<T, float>) {
    if (args.residual == nullptr && !kept.drops()) return x;
  }
  kept.draw(row, n);
  const T* residual = args.residual == nullptr ? nullptr : args.residual + row * n;
  T* sum = args.sum == nullptr ? nullptr : args.sum + row * n;
  for_vectors(n, [&](std::int64_t i, std::int64_t count) {
    F32x16 value = get(x + i, count);
    if (kept.drops()) value *= kept.factors(i);
    if (residual != nullptr) value += get(residual + i, count);
    if (sum != nullptr) {
      set(sum + i, value, count);
      value = get(sum + i, count);  // what later layers see
    }
    set(buffer + i, value, count);
  });
  return buffer;
}

template <class T>
void keep_normal(const InplaceNormForwardArgs<T>& args, std::int64_t row, const float* v, float mean, float rstd) {
  for (std::int64_t k = 0; k < args.side_count; ++k) {
    from_float(args.side + row * args.side_count + k, (v[args.side_columns[k]] - mean) * rstd);
  }
  if (args.normal == nullptr) return;
  for_vectors(args.n, [&](std::int64_t i, std::int64_t count) {
    set(args.normal + row * args.n + i, (get(v + i, count) - mean) * rstd, count);
  });
}

template <class T, bool kKept>
GANTRY_INLINE F32x16 normal_of(const InplaceNormBackwardArgs<T>& args, std::int64_t row, std::int64_t i,
                               std::int64_t count) {
  if constexpr (kKept) return get(args.normal + row * args.n + i, count);
  const F32x16 inverse = get(args.inverse + i, count);
  const F32x16 normal = (get(args.y + row * args.n + i, count) - get(args.bias + i, count)) * inverse;
  return inverse == F32x16{} ? F32x16{} : normal;  // an infinite y or bias in a side column must not make a NaN
}

struct RowMeans {
  float g, g_normal;
};

// First pass: the two means of the row, and its share of the parameters' gradients.
template <class T, bool kCentred, bool kKept>
GANTRY_INLINE RowMeans row_means(const InplaceNormBackwardArgs<T>& args, std::int64_t row) {
  const std::int64_t n = args.n;
  const T* dy = args.dy + row * n;
  F32x16 sums[2] = {};
  float total = sum_row(n, [&](std::int64_t i, std::int64_t count) {
    const F32x16 gradient = get(dy + i, count);
    const F32x16 normal = normal_of<T, kKept>(args, row, i, count);
    const F32x16 scaled = gradient * get(args.weight + i, count);
    if constexpr (kCentred) sums[(i / kLanes) % 2] += scaled;
    set(args.dweight + i, get(args.dweight + i, count) + gradient * normal, count);
    set(args.dbias + i, get(args.dbias + i, count) + gradient, count);
    return scaled * normal;
  });
  for (std::int64_t k = 0; k < args.side_count; ++k) {
    const std::int64_t column = args.side_columns[k];
    const float product = to_float(dy[column]) * to_float(args.side[row * args.side_count + k]);
    args.dweight[column] += product;
    total += args.weight[column] * product;
  }
  return {reduce_add(sums[0] + sums[1]) / static_cast<float>(n), total / static_cast<float>(n)};
}

// Second pass: the gradient of the norm's input, which goes to the residual and, through the dropout, to x.
template <class T, bool kKept>
GANTRY_INLINE void row_gradient(const InplaceNormBackwardArgs<T>& args, std::int64_t row, RowMeans mean,
                                const KeptRow& kept) {
  const std::int64_t at = row * args.n;
  const float rstd = args.rstd[row];
  for_vectors(args.n, [&](std::int64_t i, std::int64_t count) {
    const F32x16 scaled = get(args.dy + at + i, count) * get(args.weight + i, count);
    F32x16 result = (scaled - mean.g - normal_of<T, kKept>(args, row, i, count) * mean.g_normal) * rstd;
    if (args.dsum != nullptr) result += get(args.dsum + at + i, count);
    if (args.dresidual != nullptr) set(args.dresidual + at + i, result, count);
    if (kept.drops()) result *= kept.factors(i);
    set(args.dx + at + i, result, count);
  });
  for (std::int64_t k = 0; k < args.side_count; ++k) {
    const std::int64_t column = args.side_columns[k];
    const float normal = to_float(args.side[row * args.side_count + k]);
    float result = (to_float(args.dy[at + column]) * args.weight[column] - mean.g - normal * mean.g_normal) * rstd;
    if (args.dsum != nullptr) result += to_float(args.dsum[at + column]);
    if (args.dresidual != nullptr) from_float(args.dresidual + at + column, result);
    from_float(args.dx + at + column, kept.drops() ? result * kept.factor(column) : result);
  }
}

template <class T, bool kCentred, bool kKept>
void backward_rows(const InplaceNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  KeptRow kept(args.dropout, args.n);
  for (std::int64_t row = begin; row < end; ++row) {
    const RowMeans means = row_means<T, kCentred, kKept>(args, row);
    kept.draw(row, args.n);
    row_gradient<T, kKept>(args, row, means, kept);
  }
}

}  // namespace

template <class T, bool kCentred>
void inplace_norm_forward(const InplaceNormForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  std::vector<float> buffer(static_cast<std::size_t>(n));
  KeptRow kept(args.dropout, n);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* v = input_row(args, row, buffer.data(), kept);
    const auto value = [&](std::int64_t i, std::int64_t count) { return get(v + i, count); };
    const float mean = kCentred ? sum_row(n, value) / static_cast<float>(n) : 0.0f;
    const float squares = sum_row(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 centred = get(v + i, count) - mean;
      return centred * centred;
    });
    const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + args.eps);
    args.rstd[row] = rstd;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 normal = (get(v + i, count) - mean) * rstd;
      set(args.y + row * n + i, normal * get(args.weight + i, count) + get(args.bias + i, count), count);
    });
    keep_normal(args, row, v, mean, rstd);
  }
}

template <class T, bool kCentred>
void inplace_norm_backward(const InplaceNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  if (args.normal != nullptr) {
    backward_rows<T, kCentred, true>(args, begin, end);
  } else {
    backward_rows<T, kCentred, false>(args, begin, end);
  }
}

#define GANTRY_INSTANTIATE(T, centred)                                                                          \
  template void inplace_norm_forward<T, centred>(const InplaceNormForwardArgs<T>&, std::int64_t, std::int64_t); \
  template void inplace_norm_backward<T, centred>(const InplaceNormBackwardArgs<T>&, std::int64_t, std::int64_t);
GANTRY_INSTANTIATE(float, true)
GANTRY_INSTANTIATE(float, false)
GANTRY_INSTANTIATE(Bf16, true)
GANTRY_INSTANTIATE(Bf16, false)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
