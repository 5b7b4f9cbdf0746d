// Method: Layer Normalization, Ba et al. 2016, section 3. Variance in two passes (the row is in cache), so that a large
// mean does not cancel it; reductions of the parameter gradients stay in fp32 for every storage type.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/layer_norm/layer_norm_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
void layer_norm_forward(const LayerNormForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * n;
    if (args.residual != nullptr) {
      T* sum = args.sum + row * n;
      const T* residual = args.residual + row * n;
      for_vectors(n, [&](std::int64_t i, std::int64_t count) {
        set(sum + i, get(x + i, count) + get(residual + i, count), count);
      });
      x = sum;
    }
    F32x16 total = {};
    for_vectors(n, [&](std::int64_t i, std::int64_t count) { total += get(x + i, count); });
    const float mean = reduce_add(total) / static_cast<float>(n);
    F32x16 squares = {};
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const F32x16 centred = load(x + i) - mean;
      squares += centred * centred;
    }
    float variance = reduce_add(squares);
    for (; i < n; ++i) variance += (to_float(x[i]) - mean) * (to_float(x[i]) - mean);
    const float rstd = 1.0f / __builtin_sqrtf(variance / static_cast<float>(n) + args.eps);
    if (args.mean != nullptr) args.mean[row] = mean;
    if (args.rstd != nullptr) args.rstd[row] = rstd;
    T* y = args.y + row * n;
    for_vectors(n, [&](std::int64_t j, std::int64_t count) {
      const F32x16 normal = (get(x + j, count) - mean) * rstd;
      set(y + j, normal * get(args.weight + j, count) + get(args.bias + j, count), count);
    });
  }
}

template <class T>
void layer_norm_backward(const LayerNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * n;
    const T* dy = args.dy + row * n;
    const float mean = args.mean[row];
    const float rstd = args.rstd[row];
    F32x16 sum_g = {}, sum_gx = {};
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 gradient = get(dy + i, count);
      const F32x16 normal = (get(x + i, count) - mean) * rstd;
      const F32x16 scaled = gradient * get(args.weight + i, count);  // zero beyond n, and so is gradient
      sum_g += scaled;
      sum_gx += scaled * normal;
      set(args.dweight + i, get(args.dweight + i, count) + gradient * normal, count);
      set(args.dbias + i, get(args.dbias + i, count) + gradient, count);
    });
    const float mean_g = reduce_add(sum_g) / static_cast<float>(n);
    const float mean_gx = reduce_add(sum_gx) / static_cast<float>(n);
    T* dx = args.dx + row * n;
    const T* dsum = args.dsum == nullptr ? nullptr : args.dsum + row * n;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 normal = (get(x + i, count) - mean) * rstd;
      F32x16 result = (get(dy + i, count) * get(args.weight + i, count) - mean_g - normal * mean_gx) * rstd;
      if (dsum != nullptr) result += get(dsum + i, count);
      set(dx + i, result, count);
    });
  }
}

template void layer_norm_forward<float>(const LayerNormForwardArgs<float>&, std::int64_t, std::int64_t);
template void layer_norm_forward<Bf16>(const LayerNormForwardArgs<Bf16>&, std::int64_t, std::int64_t);
template void layer_norm_backward<float>(const LayerNormBackwardArgs<float>&, std::int64_t, std::int64_t);
template void layer_norm_backward<Bf16>(const LayerNormBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
