// Method: RoFormer, Su et al. 2021, section 3.4.2.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/rope/rope_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
void rope(const RopeArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t half = args.head_dim / 2;
  const float sign = args.inverse ? -1.0f : 1.0f;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* cosine = args.cosine + args.positions[row] * half;
    const float* sine = args.sine + args.positions[row] * half;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      T* first = args.x + row * args.row_stride + head * args.head_dim;
      T* second = first + half;
      for_vectors(half, [&](std::int64_t i, std::int64_t count) {
        const F32x16 a = get(first + i, count), b = get(second + i, count);
        const F32x16 c = get(cosine + i, count), s = get(sine + i, count) * sign;
        set(first + i, a * c - b * s, count);
        set(second + i, b * c + a * s, count);
      });
    }
  }
}

template void rope<float>(const RopeArgs<float>&, std::int64_t, std::int64_t);
template void rope<Bf16>(const RopeArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
