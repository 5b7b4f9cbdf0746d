#include "gantry/kernels/attention/attention_backward_cuda.h"
#include "gantry/kernels/attention/stored_cuda.h"

namespace gantry::kernels::cuda {
namespace {

template <class T>
struct StoredRow {
  const T* p;

  __device__ StoredRow(const StoredBackwardArgs<T>& args, std::int64_t query, std::int64_t key)
      : p(args.p + query * args.shape.k_length + key) {}

  template <class S>
  __device__ Weight weight(const Dropping& dropping, const std::uint8_t*, float, int, int c) const {
    const unsigned bits = __float_as_uint(to_float(p[thread_column() + c * kSide]));
    return {__uint_as_float(bits & 0x7fffffffu), bits >> 31 != 0 ? 0.0f : dropping.scale};
  }
};

}  // namespace

template <class T>
cudaError_t stored_backward(const StoredBackwardArgs<T>& args, cudaStream_t stream) {
  return attention_backward<StoredRow<T>>(args, stream);
}

template cudaError_t stored_backward<float>(const StoredBackwardArgs<float>&, cudaStream_t);
template cudaError_t stored_backward<Bf16>(const StoredBackwardArgs<Bf16>&, cudaStream_t);
template cudaError_t stored_backward<Fp16>(const StoredBackwardArgs<Fp16>&, cudaStream_t);

}  // namespace gantry::kernels::cuda
