#include "gantry/kernels/attention/attention_backward_cuda.h"
#include "gantry/kernels/attention/flash_cuda.h"

namespace gantry::kernels::cuda {
namespace {

struct FlashRow {
  float lse;  // minus infinity: the query sees nothing

  template <class T>
  __device__ FlashRow(const FlashBackwardArgs<T>& args, std::int64_t query, std::int64_t) : lse(args.lse[query]) {}

  template <class S>
  __device__ Weight weight(const Dropping& dropping, const std::uint8_t* keep, float score, int r, int c) const {
    return {lse == minus_infinity() ? 0.0f : expf(score - lse), tile_factor<S>(dropping, keep, r, c)};
  }
};

}  // namespace

template <class T>
cudaError_t flash_backward(const FlashBackwardArgs<T>& args, cudaStream_t stream) {
  return args.lse == nullptr ? cudaErrorInvalidValue : attention_backward<FlashRow>(args, stream);
}

template cudaError_t flash_backward<float>(const FlashBackwardArgs<float>&, cudaStream_t);
template cudaError_t flash_backward<Bf16>(const FlashBackwardArgs<Bf16>&, cudaStream_t);
template cudaError_t flash_backward<Fp16>(const FlashBackwardArgs<Fp16>&, cudaStream_t);

}  // namespace gantry::kernels::cuda
