#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/finite/finite_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
bool all_finite(const T* x, std::int64_t begin, std::int64_t end) {
  // x - x is 0 for finite numbers and NaN otherwise, and NaN survives every addition.
  F32x16 sum = {};
  for_vectors(end - begin, [&](std::int64_t i, std::int64_t count) {
    const F32x16 value = get(x + begin + i, count);
    sum += value - value;
  });
  return reduce_add(sum) == 0.0f;
}

template bool all_finite<float>(const float*, std::int64_t, std::int64_t);
template bool all_finite<Bf16>(const Bf16*, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
