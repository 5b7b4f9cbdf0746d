// Method: GLU Variants Improve Transformer, Shazeer 2020, section 2.
#include <type_traits>

#include "gantry/kernels/activation/activation_math.h"
#include "gantry/kernels/activation/chunks.h"
#include "gantry/kernels/mlp/gated_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {
namespace {

template <Activation kKind, class T>
void forward_row(const T* gate, const T* up, T* z, std::int64_t n) {
  for_chunks(0, n, [&](std::int64_t start, std::int64_t count) {
    const In<T> a(gate + start, count), b(up + start, count);
    Out<T> result(z + start, count);
    for (int i = 0; i < kChunk; i += kWidth) {
      write(result.at() + i, activate<kKind, std::is_same_v<T, float>>(read(a.at() + i)).value * read(b.at() + i));
    }
  });
}

template <Activation kKind, class T>
void backward_row(const T* gate, const T* up, const T* dz, T* dgate, T* dup, T* z, std::int64_t n) {
  for_chunks(0, n, [&](std::int64_t start, std::int64_t count) {
    const In<T> a(gate + start, count), b(up + start, count), d(dz + start, count);
    Out<T> da(dgate + start, count), db(dup + start, count), result(z + start, count);
    for (int i = 0; i < kChunk; i += kWidth) {
      const ValueAndSlope f = activate_with_slope<kKind, std::is_same_v<T, float>>(read(a.at() + i));
      const Vf factor = read(b.at() + i), gradient = read(d.at() + i);
      write(da.at() + i, gradient * factor * f.slope);
      write(db.at() + i, gradient * f.value);
      write(result.at() + i, f.value * factor);
    }
  });
}

}  // namespace

template <class T>
void gated_forward(const GatedForwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for_kind(args.kind, [&]<Activation kKind>() {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* gate = args.gate_up + row * 2 * n;
      forward_row<kKind>(gate, gate + n, args.z + row * n, n);
    }
  });
}

template <class T>
void gated_backward(const GatedBackwardArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = args.n;
  for_kind(args.kind, [&]<Activation kKind>() {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* gate = args.gate_up + row * 2 * n;
      T* dgate = args.dgate_up + row * 2 * n;
      backward_row<kKind>(gate, gate + n, args.dz + row * n, dgate, dgate + n, args.z + row * n, n);
    }
  });
}

#define GANTRY_INSTANTIATE(T)                                                             \
  template void gated_forward<T>(const GatedForwardArgs<T>&, std::int64_t, std::int64_t); \
  template void gated_backward<T>(const GatedBackwardArgs<T>&, std::int64_t, std::int64_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
