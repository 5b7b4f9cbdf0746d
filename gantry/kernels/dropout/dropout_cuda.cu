// Method: dropout (Srivastava et al. 2014) whose mask is drawn again in backward instead of stored. A thread has the
// eight elements of one draw.
#include "gantry/kernels/device/dropout.h"
#include "gantry/kernels/device/values.h"
#include "gantry/kernels/dropout/dropout_cuda.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void dropout_kernel(DropoutArgs<T> args, float scale) {
  const std::int64_t block = global_thread(), first = 8 * block;
  if (first >= args.count) return;
  const int count = static_cast<int>(args.count - first < 8 ? args.count - first : 8);
  unsigned keep = 0;
  if (args.bits_are_given) {
    keep = args.bits[block];
  } else {
    keep = keep_byte(args.rule, static_cast<std::uint64_t>(block)) & 0xffu >> (8 - count);
    if (args.bits != nullptr) args.bits[block] = static_cast<std::uint8_t>(keep);
  }
  for (int i = 0; i < count; ++i) put(args.y + first + i, to_float(args.x[first + i]) * keep_factor(keep, i, scale));
}

}  // namespace

template <class T>
cudaError_t dropout_apply(const DropoutArgs<T>& args, cudaStream_t stream) {
  if (args.count == 0) return cudaSuccess;
  return launch(dropout_kernel<T>, {blocks_for((args.count + 7) / 8, kThreads), kThreads, 0, stream}, args,
                keep_scale(args.rule.threshold));
}

template cudaError_t dropout_apply<float>(const DropoutArgs<float>&, cudaStream_t);
template cudaError_t dropout_apply<Bf16>(const DropoutArgs<Bf16>&, cudaStream_t);
template cudaError_t dropout_apply<Fp16>(const DropoutArgs<Fp16>&, cudaStream_t);

}  // namespace gantry::kernels::cuda
