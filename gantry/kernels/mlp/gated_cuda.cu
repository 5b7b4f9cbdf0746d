// One element of z a thread. Method: GLU Variants Improve Transformer, Shazeer 2020, section 2.
#include "gantry/kernels/activation/activation_math_cuda.h"
#include "gantry/kernels/device/values.h"
#include "gantry/kernels/mlp/gated_cuda.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <Activation kKind, class T>
__global__ void forward_kernel(GatedForwardArgs<T> args, std::int64_t count) {
  const std::int64_t at = global_thread();
  if (at >= count) return;
  const std::int64_t gate = at / args.n * 2 * args.n + at % args.n, up = gate + args.n;
  put(args.z + at, evaluate<kKind>(to_float(args.gate_up[gate])).value * to_float(args.gate_up[up]));
}

// Everything is read before anything is written: dgate_up may be gate_up, and z may be dz.
template <Activation kKind, class T>
__global__ void backward_kernel(GatedBackwardArgs<T> args, std::int64_t count) {
  const std::int64_t at = global_thread();
  if (at >= count) return;
  const std::int64_t gate = at / args.n * 2 * args.n + at % args.n, up = gate + args.n;
  const Point f = evaluate<kKind>(to_float(args.gate_up[gate]));
  const float factor = to_float(args.gate_up[up]), gradient = to_float(args.dz[at]);
  put(args.dgate_up + gate, gradient * factor * f.slope);
  put(args.dgate_up + up, gradient * f.value);
  put(args.z + at, f.value * factor);
}

}  // namespace

template <class T>
cudaError_t gated_forward(const GatedForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream) {
  const std::int64_t count = rows * args.n;
  if (count == 0) return cudaSuccess;
  return for_kind(args.kind, [&]<Activation kKind>() {
    return launch(forward_kernel<kKind, T>, {blocks_for(count, kThreads), kThreads, 0, stream}, args, count);
  });
}

template <class T>
cudaError_t gated_backward(const GatedBackwardArgs<T>& args, std::int64_t rows, cudaStream_t stream) {
  const std::int64_t count = rows * args.n;
  if (count == 0) return cudaSuccess;
  return for_kind(args.kind, [&]<Activation kKind>() {
    return launch(backward_kernel<kKind, T>, {blocks_for(count, kThreads), kThreads, 0, stream}, args, count);
  });
}

#define GANTRY_INSTANTIATE(T)                                                                    \
  template cudaError_t gated_forward<T>(const GatedForwardArgs<T>&, std::int64_t, cudaStream_t); \
  template cudaError_t gated_backward<T>(const GatedBackwardArgs<T>&, std::int64_t, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
