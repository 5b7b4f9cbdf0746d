#include "gantry/kernels/layer_norm/norm_rows_cuda.h"
#include "gantry/kernels/rms_norm/rms_norm_cuda.h"

namespace gantry::kernels::cuda {

template <class T>
cudaError_t rms_norm_forward(const RmsNormForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream) {
  const NormForward<T> norm{args.x,  args.residual, args.sum, args.weight, nullptr, args.y,
                            nullptr, args.rstd,     args.n,   args.eps,    false};
  return norm_forward(norm, rows, stream);
}

template <class T>
cudaError_t rms_norm_backward(const RmsNormBackwardArgs<T>& args, std::int64_t rows, float* partial,
                              cudaStream_t stream) {
  const NormBackward<T> norm{args.dy,   args.x,  nullptr, args.rstd, args.weight,
                             args.dsum, args.dx, partial, args.n,    false};
  return norm_backward(norm, args.dweight, nullptr, rows, stream);
}

#define GANTRY_INSTANTIATE(T)                                                                         \
  template cudaError_t rms_norm_forward<T>(const RmsNormForwardArgs<T>&, std::int64_t, cudaStream_t); \
  template cudaError_t rms_norm_backward<T>(const RmsNormBackwardArgs<T>&, std::int64_t, float*, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
