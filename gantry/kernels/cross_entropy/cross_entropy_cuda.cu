// One block a row: maximum and sum of exponentials in one pass over the logits (Milakov and Gimelshein, Online
// normalizer calculation for softmax, 2018), the gradient in another.
#include "gantry/kernels/cross_entropy/cross_entropy_cuda.h"
#include "gantry/kernels/device/reduce.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

struct RowSums {
  float maximum;
  float exponentials;  // sum of exp(logit - maximum)
  float distances;     // sum of logit - maximum, where asked for
};

// The difference to the largest logit; minus infinity stays that until there is another one.
__device__ float distance(float x, float maximum) { return maximum == -INFINITY ? x : x - maximum; }

template <class T>
__device__ RowSums row_sums(const T* x, std::int64_t n, bool wants_distances, float* shared) {
  float maximum = -INFINITY, sum = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) {
    const float value = to_float(x[i]);
    if (value > maximum) {
      sum *= expf(maximum - value);
      maximum = value;
    }
    sum += expf(distance(value, maximum));  // NaN for NaN, which no maximum is, and for infinity
  }
  RowSums sums{block_max<kThreads>(maximum, shared), 0.0f, 0.0f};
  sums.exponentials = block_sum<kThreads>(sum * expf(distance(maximum, sums.maximum)), shared);
  if (!wants_distances) return sums;
  float total = 0.0f;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) total += to_float(x[i]) - sums.maximum;
  sums.distances = block_sum<kThreads>(total, shared);
  return sums;
}

// With dloss = slope softmax - (1 - smoothing) onehot - smoothing / n.
template <class T>
__device__ void put_gradients(const CrossEntropyArgs<T>& args, T* x, std::int64_t label, float label_distance,
                              const RowSums& sums, float slope) {
  const float factor = args.scale * slope / sums.exponentials;
  const float uniform = args.label_smoothing / static_cast<float>(args.vocab);
  for (std::int64_t i = threadIdx.x; i < args.vocab; i += kThreads) {
    if (i == label) {
      const float probability = expf(label_distance) / sums.exponentials;
      put(x + i, (probability * slope - (1.0f - args.label_smoothing) - uniform) * args.scale);
    } else {
      put(x + i, expf(to_float(x[i]) - sums.maximum) * factor - uniform * args.scale);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(CrossEntropyArgs<T> args, std::int64_t rows) {
  __shared__ float shared[kWarps];
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    T* x = args.logits + row * args.vocab;
    const std::int64_t label = args.labels[row];
    if (label < 0) {
      if (threadIdx.x == 0) args.losses[row] = 0.0f;
      for (std::int64_t i = threadIdx.x; args.scale != 0.0f && i < args.vocab; i += kThreads) put(x + i, 0.0f);
      continue;
    }
    const float label_logit = to_float(x[label]);  // the reductions wait until all threads have read it
    const RowSums sums = row_sums(x, args.vocab, args.label_smoothing != 0.0f, shared);
    const float label_distance = label_logit - sums.maximum;
    const float log_sum = logf(sums.exponentials), lse = sums.maximum + log_sum;
    if (threadIdx.x == 0) {
      float loss = log_sum - label_distance;
      if (args.label_smoothing != 0.0f) {
        // Never smoothing * distance alone: that would be 0 * infinity for a hidden label and no smoothing.
        const float mean = sums.distances / static_cast<float>(args.vocab);
        loss = log_sum - (1.0f - args.label_smoothing) * label_distance - args.label_smoothing * mean;
      }
      if (args.z_loss != 0.0f) loss += args.z_loss * lse * lse;
      args.losses[row] = loss;
    }
    if (args.scale == 0.0f) continue;
    const float slope = args.z_loss != 0.0f ? 1.0f + 2.0f * args.z_loss * lse : 1.0f;
    put_gradients(args, x, label, label_distance, sums, slope);
  }
}

}  // namespace

template <class T>
cudaError_t cross_entropy(const CrossEntropyArgs<T>& args, std::int64_t rows, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return launch(cross_entropy_kernel<T>, {blocks_for_rows(rows), kThreads, 0, stream}, args, rows);
}

template cudaError_t cross_entropy<float>(const CrossEntropyArgs<float>&, std::int64_t, cudaStream_t);
template cudaError_t cross_entropy<Bf16>(const CrossEntropyArgs<Bf16>&, std::int64_t, cudaStream_t);
template cudaError_t cross_entropy<Fp16>(const CrossEntropyArgs<Fp16>&, std::int64_t, cudaStream_t);

}  // namespace gantry::kernels::cuda
