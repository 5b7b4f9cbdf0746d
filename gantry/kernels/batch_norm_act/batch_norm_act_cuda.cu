// Each pass is three kernels: sums of parts of each channel, which are joined in a fixed order, then the elements.
#include "gantry/kernels/batch_norm_act/batch_norm_act_cuda.h"
#include "gantry/kernels/batch_norm_act/channel_sums_cuda.h"
#include "gantry/kernels/device/values.h"

namespace gantry::kernels::cuda {
namespace {

constexpr int kThreads = kNormThreads;

// Where the channel is among the side channels, or -1.
__device__ std::int64_t side_place(const std::int64_t* side_channels, std::int64_t count, std::int64_t channel) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (side_channels[middle] < channel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && side_channels[low] == channel ? low : -1;
}

// ---- forward

template <class T>
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(BatchNormActForwardArgs<T> args, Split split, Moments* partial) {
  __shared__ Moments shared[kThreads];
  const std::int64_t channel = channel_of(split);
  Moments moments{};
  for_elements(split, channel, [&](std::int64_t b, std::int64_t i) {
    moments.add(to_float(args.x[place(split, b, split.shape.channels, channel, i)]));
  });
  put_part(split, moments, shared, partial);
}

// A warp a channel.
template <class T>
__global__ void join_statistics_kernel(BatchNormActForwardArgs<T> args, Split split, const Moments* partial) {
  const std::int64_t channel = global_thread() / 32;
  if (channel >= split.shape.channels) return;  // whole warps
  float mean, variance;
  if (args.training) {
    const Moments total = channel_total(split, channel, partial);
    const auto count = static_cast<float>(split.shape.batch * split.shape.inner);
    mean = total.mean;
    variance = total.squares / count;
    if (threadIdx.x % 32 == 0 && args.running_mean != nullptr) {
      const float keep = 1.0f - args.momentum, unbiased = total.squares / (count - 1.0f);
      args.running_mean[channel] = args.momentum * mean + keep * args.running_mean[channel];
      args.running_var[channel] = args.momentum * unbiased + keep * args.running_var[channel];
    }
  } else {
    mean = args.running_mean[channel];
    variance = args.running_var[channel];
  }
  if (threadIdx.x % 32 != 0) return;
  args.mean[channel] = mean;
  args.rstd[channel] = 1.0f / sqrtf(variance + args.eps);
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(BatchNormActForwardArgs<T> args, Split split) {
  const std::int64_t channel = channel_of(split), channels = split.shape.channels;
  const std::int64_t side = side_place(args.side_channels, args.side_count, channel);
  const float mean = args.mean[channel], rstd = args.rstd[channel];
  const float weight = args.weight[channel], bias = args.bias[channel];
  for_elements(split, channel, [&](std::int64_t b, std::int64_t i) {
    const std::int64_t at = place(split, b, channels, channel, i);
    const float normal = (to_float(args.x[at]) - mean) * rstd, y = normal * weight + bias;
    put(args.z + at, y < 0.0f ? y * args.slope : y);
    if (args.normal != nullptr) put(args.normal + at, normal);
    if (side >= 0) put(args.side + place(split, b, args.side_count, side, i), normal);
  });
}

// ---- backward

// Reads a channel's elements; its parameters are read once.
template <class T>
struct BackwardReader {
  const BatchNormActBackwardArgs<T>& args;
  const Split& split;
  std::int64_t channel, side;
  float bias, inverse;

  __device__ BackwardReader(const BatchNormActBackwardArgs<T>& from, const Split& of, std::int64_t which)
      : args(from),
        split(of),
        channel(which),
        side(side_place(from.side_channels, from.side_count, which)),
        bias(from.bias[which]),
        inverse(from.normal == nullptr ? from.inverse[which] : 0.0f) {}

  __device__ std::int64_t at(std::int64_t b, std::int64_t i) const {
    return place(split, b, split.shape.channels, channel, i);
  }
  // The gradient of y.
  __device__ float gradient(std::int64_t b, std::int64_t i) const {
    const float dz = to_float(args.dz[at(b, i)]);
    return to_float(args.z[at(b, i)]) < 0.0f ? dz * args.slope : dz;
  }
  __device__ float normal(std::int64_t b, std::int64_t i) const {
    if (args.normal != nullptr) return to_float(args.normal[at(b, i)]);
    if (side >= 0) return to_float(args.side[place(split, b, args.side_count, side, i)]);
    const float z = to_float(args.z[at(b, i)]);
    return ((z < 0.0f ? z / args.slope : z) - bias) * inverse;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_sums_kernel(BatchNormActBackwardArgs<T> args, Split split, GradientSums* partial) {
  __shared__ GradientSums shared[kThreads];
  const BackwardReader<T> read(args, split, channel_of(split));
  GradientSums sums{};
  for_elements(split, read.channel, [&](std::int64_t b, std::int64_t i) {
    const float gradient = read.gradient(b, i);
    sums.join({gradient, gradient * read.normal(b, i)});
  });
  put_part(split, sums, shared, partial);
}

// A warp a channel.
template <class T>
__global__ void join_gradients_kernel(BatchNormActBackwardArgs<T> args, Split split, const GradientSums* partial) {
  const std::int64_t channel = global_thread() / 32;
  if (channel >= split.shape.channels) return;  // whole warps
  const GradientSums total = channel_total(split, channel, partial);
  if (threadIdx.x % 32 != 0) return;
  args.dweight[channel] = total.product;
  args.dbias[channel] = total.gradient;
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward_kernel(BatchNormActBackwardArgs<T> args, Split split) {
  const BackwardReader<T> read(args, split, channel_of(split));
  const auto count = static_cast<float>(split.shape.batch * split.shape.inner);
  const float factor = args.weight[read.channel] * args.rstd[read.channel];
  const float mean_gradient = args.dbias[read.channel] / count, mean_product = args.dweight[read.channel] / count;
  for_elements(split, read.channel, [&](std::int64_t b, std::int64_t i) {
    float result = read.gradient(b, i);
    if (args.training) result = result - mean_gradient - read.normal(b, i) * mean_product;
    put(args.dx + read.at(b, i), result * factor);
  });
}

LaunchShape warp_a_channel(const Split& split, cudaStream_t stream) {
  return {blocks_for(32 * split.shape.channels, kThreads), kThreads, 0, stream};
}

template <class T>
bool accepts(const BatchNormActForwardArgs<T>& args) {
  const bool tracks = args.running_mean != nullptr, one_value = args.shape.batch * args.shape.inner == 1;
  return args.slope > 0.0f && tracks == (args.running_var != nullptr) && (args.training ? !one_value : tracks) &&
         args.mean != nullptr && args.rstd != nullptr;
}

}  // namespace

std::int64_t batch_norm_act_partial(const BatchNormActShape& shape) {
  const Split split = split_of(shape);
  return split.parts * split.sums * static_cast<std::int64_t>(sizeof(Moments) / sizeof(float));
}

template <class T>
cudaError_t batch_norm_act_forward(const BatchNormActForwardArgs<T>& args, float* partial, cudaStream_t stream) {
  if (!accepts(args)) return cudaErrorInvalidValue;
  const Split split = split_of(args.shape);
  if (split.parts == 0) return cudaSuccess;
  auto* moments = reinterpret_cast<Moments*>(partial);
  const LaunchShape elements{split.blocks(), kThreads, 0, stream};
  cudaError_t error = cudaSuccess;
  if (args.training) error = launch(statistics_kernel<T>, elements, args, split, moments);
  if (error == cudaSuccess) {
    error = launch(join_statistics_kernel<T>, warp_a_channel(split, stream), args, split, moments);
  }
  return error == cudaSuccess ? launch(forward_kernel<T>, elements, args, split) : error;
}

template <class T>
cudaError_t batch_norm_act_backward(const BatchNormActBackwardArgs<T>& args, float* partial, cudaStream_t stream) {
  if (!(args.slope > 0.0f) || args.rstd == nullptr) return cudaErrorInvalidValue;
  if (args.shape.channels == 0) return cudaSuccess;
  const Split split = split_of(args.shape);
  auto* sums = reinterpret_cast<GradientSums*>(partial);
  const LaunchShape elements{split.blocks(), kThreads, 0, stream};
  cudaError_t error = cudaSuccess;
  if (split.parts != 0) error = launch(gradient_sums_kernel<T>, elements, args, split, sums);
  if (error == cudaSuccess) {
    error = launch(join_gradients_kernel<T>, warp_a_channel(split, stream), args, split, sums);
  }
  if (error != cudaSuccess || split.parts == 0) return error;
  return launch(backward_kernel<T>, elements, args, split);
}

#define GANTRY_INSTANTIATE(T)                                                                              \
  template cudaError_t batch_norm_act_forward<T>(const BatchNormActForwardArgs<T>&, float*, cudaStream_t); \
  template cudaError_t batch_norm_act_backward<T>(const BatchNormActBackwardArgs<T>&, float*, cudaStream_t);
GANTRY_INSTANTIATE(float)
GANTRY_INSTANTIATE(Bf16)
GANTRY_INSTANTIATE(Fp16)
#undef GANTRY_INSTANTIATE

}  // namespace gantry::kernels::cuda
