#include "gantry/kernels/layer_norm/layer_norm_cuda.h"
#include "gantry/kernels/layer_norm/norm_rows_cuda.h"

namespace gantry::kernels::cuda {

template <class T>
cudaError_t layer_norm_forward(const LayerNormForwardArgs<T>& args, std::int64_t rows, cudaStream_t stream) {
  const NormForward<T> norm{args.x,    args.residual, args.sum, args.weight, args.bias, args.y,
                            args.mean, args.rstd,     args.n,   args.eps,    true};
  return norm_forward(norm, rows, stream);
}

template <class T>
cudaError_t layer_norm_backward(const LayerNormBackwardArgs<T>& args, std::int64_t rows, float* partial,
                                cudaStream_t stream) {
  const NormBackward<T> norm{args.dy,   args.x,  args.mean, args.rstd, args.weight,
                             args.dsum, args.dx, partial,   args.n,    true};
  return norm_backward(norm, args.dweight, args.dbias, rows, stream);
}

#define GANTRY_INSTANTIATE(T)                                                                             \
  template cudaError_t layer_norm_forward<T>(const LayerNormForwardArgs<T>&, std::int64_t, cudaStream_t); \
  template cudaError_t layer_norm_backward<T>(const LayerNormBackwardArgs<T>&, std::int64_t, float*, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
