#pragma once
// How the threads of batch norm's kernels share the elements of [batch, channels, inner], and sums by channel: each
// block over its part, then the parts in a fixed order, so that equal inputs give equal bits. Only
// batch_norm_act_cuda.cu includes it.
#include "gantry/kernels/batch_norm_act/batch_norm_act_cuda.h"
#include "gantry/kernels/device/join_parts.h"  // kNormThreads

namespace gantry::kernels::cuda {

inline constexpr int kSplitWarps = kNormThreads / 32;
inline constexpr std::int64_t kSplitBlocks = 1024;  ///< enough for any GPU; more only if there are more groups
inline constexpr std::int64_t kSplitChunk = 1024;   ///< columns that a warp takes at a time
inline constexpr std::int64_t kSplitRows = 16;      ///< at least, where a lane stays in its column

/// The elements as a matrix [batch, channels * inner]. A group of columns is a channel, or where channels are narrower
/// than a warp, 32 columns of several: lanes read neighbours in both cases. Each of a group's blocks takes a part of
/// the segments, which are a row's chunks of these columns, one a warp.
struct Split {
  BatchNormActShape shape;
  bool across;  ///< lanes stay in their columns
  std::int64_t columns, group_columns, groups;
  std::int64_t chunks;  ///< of a row of a group
  std::int64_t parts;   // blocks a group, 0 without elements
  std::int64_t sums;    // that a part leaves: one a channel or one a column

  dim3 blocks() const { return dim3(static_cast<unsigned>(groups * parts)); }
};

inline std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline Split split_of(const BatchNormActShape& shape) {
  Split split{};
  split.shape = shape;
  split.across = shape.inner < 32;
  split.columns = shape.channels * shape.inner;
  split.group_columns = split.across ? 32 : shape.inner;
  split.groups = quotient_up(split.columns, split.group_columns);
  split.chunks = quotient_up(split.group_columns, kSplitChunk);
  split.sums = split.across ? split.columns : shape.channels;
  if (shape.batch == 0 || split.groups == 0) return split;
  const std::int64_t affordable = split.groups < kSplitBlocks ? kSplitBlocks / split.groups : 1;
  const std::int64_t useful = quotient_up(shape.batch * split.chunks, kSplitWarps * (split.across ? kSplitRows : 1));
  split.parts = affordable < useful ? affordable : useful;
  return split;
}

/// Column of this thread's first element, which lanes of the last group may lack.
__device__ inline std::int64_t first_column(const Split& split) {
  return blockIdx.x % split.groups * split.group_columns + threadIdx.x % 32;
}

__device__ inline std::int64_t channel_of(const Split& split) {
  const std::int64_t column = first_column(split);
  return column < split.columns ? column / split.shape.inner : 0;
}

/// Place of element i of a channel in a tensor [batch, channels, inner].
__device__ inline std::int64_t place(const Split& split, std::int64_t b, std::int64_t channels, std::int64_t channel,
                                     std::int64_t i) {
  return (b * channels + channel) * split.shape.inner + i;
}

/// Calls visit(b, i) for this thread's elements, all of one channel.
template <class Visit>
__device__ void for_elements(const Split& split, std::int64_t channel, Visit visit) {
  const std::int64_t group_first = blockIdx.x % split.groups * split.group_columns;
  const std::int64_t group_end = group_first + split.group_columns;
  const std::int64_t last = group_end < split.columns ? group_end : split.columns;
  const std::int64_t segments = split.shape.batch * split.chunks;
  const std::int64_t skip = channel * split.shape.inner;
  for (std::int64_t s = blockIdx.x / split.groups * kSplitWarps + threadIdx.x / 32; s < segments;
       s += split.parts * kSplitWarps) {
    const std::int64_t b = s / split.chunks, begin = group_first + s % split.chunks * kSplitChunk;
    const std::int64_t end = begin + kSplitChunk < last ? begin + kSplitChunk : last;
    for (std::int64_t column = begin + threadIdx.x % 32; column < end; column += 32) visit(b, column - skip);
  }
}

// ---- sums

/// Mean and squared deviations, one value at a time and then joined, so that x is read once and nothing cancels
/// (Welford 1962; Chan, Golub and LeVeque 1979).
struct Moments {
  float count, mean, squares;

  __device__ void add(float x) {
    count += 1.0f;
    const float d = x - mean;
    mean += d / count;
    squares += d * (x - mean);
  }
  __device__ void join(const Moments& other) {
    if (other.count == 0.0f) return;
    const float total = count + other.count, d = other.mean - mean, share = other.count / total;
    mean += d * share;
    squares += other.squares + d * (count * share) * d;  // 0 for the first, however large d is
    count = total;
  }
  __device__ Moments of_lane(int bits) const {
    return {__shfl_xor_sync(0xffffffffu, count, bits), __shfl_xor_sync(0xffffffffu, mean, bits),
            __shfl_xor_sync(0xffffffffu, squares, bits)};
  }
};

/// Of the gradients of y, and of these times xhat.
struct GradientSums {
  float gradient, product;

  __device__ void join(const GradientSums& other) { gradient += other.gradient, product += other.product; }
  __device__ GradientSums of_lane(int bits) const {
    return {__shfl_xor_sync(0xffffffffu, gradient, bits), __shfl_xor_sync(0xffffffffu, product, bits)};
  }
};

/// Joins a warp; the result is that of lane 0.
template <class Sums>
__device__ Sums join_lanes(Sums sums) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) sums.join(sums.of_lane(bits));
  return sums;
}

/// Joins the block's threads and stores what it leaves; `shared` [kNormThreads].
template <class Sums>
__device__ void put_part(const Split& split, Sums sums, Sums* shared, Sums* partial) {
  shared[threadIdx.x] = sums;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  for (unsigned thread = threadIdx.x + 32; thread < kNormThreads; thread += 32) sums.join(shared[thread]);
  Sums* part = partial + blockIdx.x / split.groups * split.sums;
  if (split.across) {
    if (first_column(split) < split.columns) part[first_column(split)] = sums;
  } else {
    sums = join_lanes(sums);
    if (threadIdx.x == 0) part[channel_of(split)] = sums;
  }
}

/// Joins the parts of a channel, for lane 0 of the warp that takes it.
template <class Sums>
__device__ Sums channel_total(const Split& split, std::int64_t channel, const Sums* partial) {
  const std::int64_t width = split.across ? split.shape.inner : 1;
  Sums sums{};
  for (std::int64_t k = threadIdx.x % 32; k < split.parts * width; k += 32) {
    sums.join(partial[k / width * split.sums + channel * width + k % width]);
  }
  return join_lanes(sums);
}

}  // namespace gantry::kernels::cuda
