// Method: GLU Variants Improve Transformer, Shazeer 2020, section 2.
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/swiglu/swiglu_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
void swiglu_forward(const SwigluForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* gate = args.gate_up + row * 2 * n;
    const T* up = gate + n;
    T* z = args.z + row * n;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 a = get(gate + i, count);
      set(z + i, a * sigmoid(a) * get(up + i, count), count);
    });
  }
}

template <class T>
void swiglu_backward(const SwigluBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for (std::int64_t row = begin; row < end; ++row) {
    const T* gate = args.gate_up + row * 2 * n;
    const T* up = gate + n;
    const T* dz = args.dz + row * n;
    T* dgate = args.dgate_up + row * 2 * n;
    T* dup = dgate + n;
    for_vectors(n, [&](std::int64_t i, std::int64_t count) {
      const F32x16 a = get(gate + i, count), b = get(up + i, count), d = get(dz + i, count);
      const F32x16 s = sigmoid(a);
      set(dup + i, d * a * s, count);
      set(dgate + i, d * b * s * (1.0f + a * (1.0f - s)), count);
    });
  }
}

template void swiglu_forward<float>(const SwigluForwardArgs<float>&, std::int64_t, std::int64_t);
template void swiglu_forward<Bf16>(const SwigluForwardArgs<Bf16>&, std::int64_t, std::int64_t);
template void swiglu_backward<float>(const SwigluBackwardArgs<float>&, std::int64_t, std::int64_t);
template void swiglu_backward<Bf16>(const SwigluBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
