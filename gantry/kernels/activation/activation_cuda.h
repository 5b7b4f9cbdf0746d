#pragma once
// Raw CUDA kernels of the activations, on pointers of one device and a stream. Torch-free.
#include <cuda_runtime.h>

#include <cstdint>

#include "gantry/kernels/activation/activation_raw.h"

namespace gantry::kernels {

/// As the CPU kernels of activation_raw.h, for n elements; T is float, Bf16 or Fp16. The launch's error comes back. The
/// caller has set the device.
template <class T>
cudaError_t activation_forward_cuda(const ActivationForwardArgs<T>& args, std::int64_t n, cudaStream_t stream);
template <class T>
cudaError_t activation_backward_cuda(const ActivationBackwardArgs<T>& args, std::int64_t n, cudaStream_t stream);
template <class T>
cudaError_t activation_exact_backward_cuda(const ActivationExactArgs<T>& args, std::int64_t n, cudaStream_t stream);

}  // namespace gantry::kernels
