// Method: layer normalisation (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019), differentiated from the output
// (Tempo, NeurIPS 2022). With xhat = (y - bias) / weight and g = weight * dy:
//   dv = rstd * (g - mean(g) - xhat * mean(g * xhat)),  dweight = sum over rows of dy * xhat,  dbias = that of dy;
// RMS norm lacks the mean(g) term.
#include <type_traits>
#include <vector>

#include "gantry/kernels/cpu/last_bits.h"
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

float rstd_of(float variance, float eps) { return 1.0f / __builtin_sqrtf(variance + eps); }

template <class T>
void put_rstd(const InplaceNormForwardArgs<T>& args, std::int64_t row, float rstd) {
  if constexpr (std::is_same_v<T, float>) {
    if (args.rstd == nullptr) {
      write_last_bits(args.y + row * args.n + args.carrier, rstd, rstd_of(0, args.eps));
      return;
    }
  }
  args.rstd[row] = rstd;
}

template <class T>
float get_rstd(const InplaceNormBackwardArgs<T>& args, std::int64_t row) {
  if constexpr (std::is_same_v<T, float>) {
    if (args.rstd == nullptr) return read_last_bits(args.y + row * args.n + args.carrier, rstd_of(0, args.eps));
  }
  return args.rstd[row];
}

// Where the normalised input of a row comes from.
enum class Normal { kInverted, kInvertedButSides, kStored };

constexpr int kBlockRows = 4;  // rows that share the loads of the parameters and the additions to their gradients

struct RowMeans {
  float g, g_normal, rstd;
};

// Pointers are local copies: stores through float* could change the arguments for all the compiler knows.
template <class T, Normal kNormal>
struct NormalReader {
  const T* from;  // normal or y, from the first row of the block
  const float *bias, *inverse;
  std::int64_t n;

  NormalReader(const InplaceNormBackwardArgs<T>& args, std::int64_t row)
      : from((kNormal == Normal::kStored ? args.normal : args.y) + row * args.n),
        bias(args.bias),
        inverse(args.inverse),
        n(args.n) {}

  // Normalised inputs of `rows` rows at offset i.
  template <int kRows>
  GANTRY_INLINE void read(std::int64_t i, std::int64_t count, F32x16* normal) const {
    F32x16 b = {}, scale = {};
    if constexpr (kNormal != Normal::kStored) b = get(bias + i, count), scale = get(inverse + i, count);
    for (int r = 0; r < kRows; ++r) {
      normal[r] = get(from + r * n + i, count);
      if constexpr (kNormal != Normal::kStored) normal[r] = (normal[r] - b) * scale;
      // An infinite y or bias in a side column must not make a NaN.
      if constexpr (kNormal == Normal::kInvertedButSides) normal[r] = scale == F32x16{} ? F32x16{} : normal[r];
    }
  }
};

// First pass: the two means of each row and its 1 / deviation, and the rows' share of the parameters' gradients.
template <class T, Normal kNormal, int kRows>
GANTRY_INLINE void row_means(const InplaceNormBackwardArgs<T>& args, std::int64_t row, bool centred, RowMeans* means) {
  const std::int64_t n = args.n;
  const NormalReader<T, kNormal> reader(args, row);
  const T* dy = args.dy + row * n;
  const float* weight = args.weight;
  float *dweight = args.dweight, *dbias = args.dbias;
  F32x16 sums[kRows] = {}, products[kRows] = {};
  for_vectors(n, [&](std::int64_t i, std::int64_t count) {
    F32x16 normal[kRows];
    reader.template read<kRows>(i, count, normal);
    const F32x16 w = get(weight + i, count);
    F32x16 dw = get(dweight + i, count), db = get(dbias + i, count);
    for (int r = 0; r < kRows; ++r) {
      const F32x16 gradient = get(dy + r * n + i, count), scaled = gradient * w;  // zero behind the end
      sums[r] += scaled;
      products[r] += scaled * normal[r];
      dw += gradient * normal[r];
      db += gradient;
    }
    set(dweight + i, dw, count);
    set(dbias + i, db, count);
  });
  for (int r = 0; r < kRows; ++r) {
    float total = reduce_add(products[r]);
    for (std::int64_t k = 0; k < args.side_count; ++k) {
      const std::int64_t column = args.side_columns[k];
      const float product = to_float(dy[r * n + column]) * to_float(args.side[(row + r) * args.side_count + k]);
      dweight[column] += product;
      total += weight[column] * product;
    }
    means[r] = {centred ? reduce_add(sums[r]) / static_cast<float>(n) : 0.0f, total / static_cast<float>(n),
                get_rstd(args, row + r)};
  }
}

template <class T>
void side_gradient(const InplaceNormBackwardArgs<T>& args, std::int64_t row, RowMeans mean, const KeptRow& kept) {
  for (std::int64_t k = 0; k < args.side_count; ++k) {
    const std::int64_t column = args.side_columns[k], at = row * args.n + column;
    const float normal = to_float(args.side[row * args.side_count + k]);
    float result = (to_float(args.dy[at]) * args.weight[column] - mean.g - normal * mean.g_normal) * mean.rstd;
    if (args.dsum != nullptr) result += to_float(args.dsum[at]);
    if (args.dresidual != nullptr) from_float(args.dresidual + at, result);
    from_float(args.dx + at, kept.drops() ? result * kept.factor(column) : result);
  }
}

// Second pass: the gradient of the norm's input, which goes to the residual and, through the dropout, to x.
template <class T, Normal kNormal, int kRows>
GANTRY_INLINE void row_gradients(const InplaceNormBackwardArgs<T>& args, std::int64_t row, const RowMeans* means,
                                 const KeptRow* kept) {
  const std::int64_t n = args.n, at = row * n;
  const NormalReader<T, kNormal> reader(args, row);
  const T *dy = args.dy + at, *dsum = args.dsum == nullptr ? nullptr : args.dsum + at;
  T *dx = args.dx + at, *dresidual = args.dresidual == nullptr ? nullptr : args.dresidual + at;
  const float* weight = args.weight;
  const bool drops = kept->drops();
  F32x16 mean_g[kRows], mean_product[kRows], scale[kRows];
  for (int r = 0; r < kRows; ++r) {
    mean_g[r] = splat(means[r].g), mean_product[r] = splat(means[r].g_normal), scale[r] = splat(means[r].rstd);
  }
  for_vectors(n, [&](std::int64_t i, std::int64_t count) {
    F32x16 normal[kRows];
    reader.template read<kRows>(i, count, normal);
    const F32x16 w = get(weight + i, count);
    for (int r = 0; r < kRows; ++r) {
      F32x16 result = (get(dy + r * n + i, count) * w - mean_g[r] - normal[r] * mean_product[r]) * scale[r];
      if (dsum != nullptr) result += get(dsum + r * n + i, count);
      if (dresidual != nullptr) set(dresidual + r * n + i, result, count);
      if (drops) result *= kept[r].factors(i);
      set(dx + r * n + i, result, count);
      // The next block: this pass over rows that lie in the cache would leave the memory idle.
      const std::int64_t next = (kRows + r) * n + i;
      __builtin_prefetch(dy + next);
      __builtin_prefetch(reader.from + next);
      __builtin_prefetch(dx + next, 1);
    }
  });
  for (int r = 0; r < kRows; ++r) side_gradient(args, row + r, means[r], kept[r]);
}

template <class T, Normal kNormal, int kRows>
void backward_block(const InplaceNormBackwardArgs<T>& args, std::int64_t row, bool centred, KeptRow* kept) {
  RowMeans means[kRows];
  row_means<T, kNormal, kRows>(args, row, centred, means);
  for (int r = 0; r < kRows; ++r) kept[r].draw(row + r, args.n);
  row_gradients<T, kNormal, kRows>(args, row, means, kept);
}

template <class T, Normal kNormal>
void backward_rows(const InplaceNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end, bool centred) {
  std::vector<KeptRow> kept(kBlockRows, KeptRow(args.dropout, args.n));
  std::int64_t row = begin;
  for (; row + kBlockRows <= end; row += kBlockRows) {
    backward_block<T, kNormal, kBlockRows>(args, row, centred, kept.data());
  }
  for (; row < end; ++row) backward_block<T, kNormal, 1>(args, row, centred, kept.data());
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
    const float rstd = rstd_of(squares / static_cast<float>(n), args.eps);
    T* y = args.y + row * n;
    const T* next_x = args.x + (row + 1) * n;  // as for the backward pass
    const float *weight = args.weight, *bias = args.bias;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      __builtin_prefetch(next_x + i);
      __builtin_prefetch(y + n + i, 1);
      const F32x16 normal = (get(v + i, count) - mean) * rstd;
      set(y + i, normal * get(weight + i, count) + get(bias + i, count), count);
    });
    put_rstd(args, row, rstd);
    keep_normal(args, row, v, mean, rstd);
  }
}

template <class T, bool kCentred>
void inplace_norm_backward(const InplaceNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  if (args.normal != nullptr) {
    backward_rows<T, Normal::kStored>(args, begin, end, kCentred);
  } else if (args.side_count != 0) {
    backward_rows<T, Normal::kInvertedButSides>(args, begin, end, kCentred);
  } else {
    backward_rows<T, Normal::kInverted>(args, begin, end, kCentred);
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
