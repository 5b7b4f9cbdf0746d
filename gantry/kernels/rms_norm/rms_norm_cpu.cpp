// Method: RMSNorm, Zhang and Sennrich 2019, section 4; the backward pass is its derivative in one read of x and dy.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/rms_norm/rms_norm_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
void rms_norm_forward(const RmsNormForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * n;
    F32x16 squares = {};
    if (args.residual != nullptr) {
      const T* residual = args.residual + row * n;
      T* sum = args.sum + row * n;
      for_vectors(n, [&](std::int64_t i, std::int64_t count) {
        set(sum + i, get(x + i, count) + get(residual + i, count), count);
        const F32x16 rounded = get(sum + i, count);
        squares += rounded * rounded;
      });
      x = sum;
    } else {
      for_vectors(n, [&](std::int64_t i, std::int64_t count) {
        const F32x16 value = get(x + i, count);
        squares += value * value;
      });
    }
    const float rstd = 1.0f / __builtin_sqrtf(reduce_add(squares) / static_cast<float>(n) + args.eps);
    if (args.rstd != nullptr) args.rstd[row] = rstd;
    T* y = args.y + row * n;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      set(y + i, get(x + i, count) * rstd * get(args.weight + i, count), count);
    });
  }
}

template <class T>
void rms_norm_backward(const RmsNormBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * n;
    const T* dy = args.dy + row * n;
    const float rstd = args.rstd[row];
    F32x16 projections = {};
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 gradient = get(dy + i, count);
      const F32x16 value = get(x + i, count);
      projections += gradient * get(args.weight + i, count) * value;
      set(args.dweight + i, get(args.dweight + i, count) + gradient * value * rstd, count);
    });
    const float correction = reduce_add(projections) * rstd * rstd / static_cast<float>(n);
    T* dx = args.dx + row * n;
    const T* dsum = args.dsum == nullptr ? nullptr : args.dsum + row * n;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      F32x16 result = (get(dy + i, count) * get(args.weight + i, count) - get(x + i, count) * correction) * rstd;
      if (dsum != nullptr) result += get(dsum + i, count);
      set(dx + i, result, count);
    });
  }
}

template void rms_norm_forward<float>(const RmsNormForwardArgs<float>&, std::int64_t, std::int64_t);
template void rms_norm_forward<Bf16>(const RmsNormForwardArgs<Bf16>&, std::int64_t, std::int64_t);
template void rms_norm_backward<float>(const RmsNormBackwardArgs<float>&, std::int64_t, std::int64_t);
template void rms_norm_backward<Bf16>(const RmsNormBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
