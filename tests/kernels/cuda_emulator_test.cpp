// The emulator itself: what threads of a block share, and that it finds the faults that it is there for.
#include <stdexcept>

#include "gantry/kernels/cpu/philox_raw.h"
#include "gantry/kernels/device/dropout.h"
#include "gantry/kernels/device/reduce.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using cuda::launch;

__global__ void places(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x + threadIdx.x] = static_cast<int>(block * 1000 + threadIdx.x);
}

TEST(CudaEmulator, EveryThreadOfEveryBlockRunsOnce) {
  for_orders([] {
    std::vector<int> out(12 * 64, -1);
    ASSERT_EQ(launch(places, {dim3(2, 3, 2), 64}, out.data()), cudaSuccess);
    for (int block = 0; block < 12; ++block) {
      for (int thread = 0; thread < 64; ++thread) {
        ASSERT_EQ(out[static_cast<std::size_t>(block * 64 + thread)], block * 1000 + thread);
      }
    }
  });
}

// Reverses the block's values through shared memory; without the barrier some are read before they are written.
__global__ void reverse(int* values, bool waits) {
  int* shared = cuda::dynamic_shared<int>();
  shared[threadIdx.x] = values[threadIdx.x];
  if (waits) __syncthreads();
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

std::vector<int> reversed(bool waits) {
  std::vector<int> values(96);
  for (int i = 0; i < 96; ++i) values[static_cast<std::size_t>(i)] = i;
  EXPECT_EQ(launch(reverse, {1, 96, 96 * sizeof(int)}, values.data(), waits), cudaSuccess);
  return values;
}

TEST(CudaEmulator, SharedMemoryIsExchangedAtBarriersAndAMissingOneShows) {
  for_orders([] {
    const std::vector<int> right = reversed(true);
    for (int i = 0; i < 96; ++i) ASSERT_EQ(right[static_cast<std::size_t>(i)], 95 - i);
    EXPECT_NE(reversed(false), right);
  });
}

__global__ void warp_sums(float* sums, unsigned* votes, int* neighbours) {
  const auto lane = threadIdx.x % 32;
  sums[threadIdx.x] = cuda::lanes_sum<8>(static_cast<float>(threadIdx.x));
  votes[threadIdx.x] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  neighbours[threadIdx.x] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), static_cast<int>(lane + 1));
}

TEST(CudaEmulator, WarpOperationsSeeTheirOwnWarp) {
  for_orders([] {
    std::vector<float> sums(64);
    std::vector<unsigned> votes(64);
    std::vector<int> neighbours(64);
    ASSERT_EQ(launch(warp_sums, {1, 64}, sums.data(), votes.data(), neighbours.data()), cudaSuccess);
    for (unsigned i = 0; i < 64; ++i) {
      ASSERT_EQ(sums[i], static_cast<float>(i / 8 * 8 * 8 + 28));
      ASSERT_EQ(votes[i], 0x49249249u);
      ASSERT_EQ(neighbours[i], static_cast<int>(i / 32 * 32 + (i + 1) % 32));
    }
  });
}

__global__ void reduce(const float* x, float* sum, float* peak) {
  __shared__ float shared[3];
  const float total = cuda::block_sum<96>(x[threadIdx.x], shared), top = cuda::block_max<96>(x[threadIdx.x], shared);
  sum[threadIdx.x] = total;
  peak[threadIdx.x] = top;
}

TEST(CudaEmulator, BlockReductionsReachAllThreads) {
  for_orders([] {
    std::vector<float> x(96), sum(96), peak(96);
    for (int i = 0; i < 96; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(i * 37 % 96);
    ASSERT_EQ(launch(reduce, {1, 96}, x.data(), sum.data(), peak.data()), cudaSuccess);
    for (std::size_t i = 0; i < 96; ++i) {
      ASSERT_EQ(sum[i], 95 * 48);
      ASSERT_EQ(peak[i], 95);
    }
  });
}

__global__ void draw(DropoutRule rule, std::uint64_t first, std::uint8_t* keep) {
  keep[threadIdx.x] = static_cast<std::uint8_t>(cuda::keep_byte(rule, first + threadIdx.x));
}

TEST(CudaEmulator, DropoutBitsAreThoseOfTheCpu) {
  for (const double p : {0.0, 0.1, 0.5, 1.0}) {
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{7}, (std::uint64_t{1} << 33) - 3}) {
      const DropoutRule rule{0x123456789abcdefull, 0xfedcba9876543210ull, dropout_threshold(p)};
      std::vector<std::uint8_t> keep(64), expected(64);
      ASSERT_EQ(launch(draw, {1, 64}, rule, first, keep.data()), cudaSuccess);
      scalar::dropout_keep_bits(rule, first * 8, 512, expected.data());
      EXPECT_EQ(keep, expected) << "p " << p << ", block " << first;
    }
  }
}

__global__ void uneven(int kind) {
  if (kind == 0 && threadIdx.x < 40) __syncthreads();
  if (kind == 1 && threadIdx.x < 40) __syncwarp();
  if (kind == 2) __shfl_xor_sync(0xffffu, 1, 1);
  if (kind == 3) (threadIdx.x % 2 == 0) ? __syncwarp() : static_cast<void>(__any_sync(0xffffffffu, true));
  if (kind == 4) cuda::dynamic_shared<char>()[128] = 1;
}

std::string complaint(int kind) {
  try {
    launch(uneven, {1, 64, 128}, kind);
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "none";
}

TEST(CudaEmulator, FaultsThatHangOrCorruptOnAGpuAreErrors) {
  for_orders([] {
    EXPECT_NE(complaint(0).find("40 of 64 threads wait at a barrier"), std::string::npos) << complaint(0);
    EXPECT_NE(complaint(1).find("8 at a warp operation"), std::string::npos) << complaint(1);
    EXPECT_NE(complaint(2).find("without all lanes in its mask"), std::string::npos) << complaint(2);
    EXPECT_NE(complaint(3).find("different operations"), std::string::npos) << complaint(3);
    EXPECT_NE(complaint(4).find("behind its 128 bytes"), std::string::npos) << complaint(4);
    EXPECT_EQ(complaint(5), "none");
  });
}

__global__ void nothing() {}

TEST(CudaEmulator, SharedMemoryIsLimitedAndAskedForByLaunch) {
  EXPECT_EQ(launch(nothing, {1, 32, 163 * 1024}), cudaSuccess);
  EXPECT_EQ(launch(nothing, {1, 32, 163 * 1024 + 1}), cudaErrorInvalidValue);
  EXPECT_EQ(launch(nothing, {1, 33}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(nothing, {dim3(1, 65536), 32}), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

__global__ void poisoned(float* out) { out[threadIdx.x] = cuda::dynamic_shared<float>()[threadIdx.x]; }

TEST(CudaEmulator, FreshSharedMemoryIsNan) {
  std::vector<float> out(32, 0.0f);
  ASSERT_EQ(launch(poisoned, {1, 32, 128}, out.data()), cudaSuccess);
  for (const float x : out) EXPECT_TRUE(std::isnan(x));
}

}  // namespace
}  // namespace gantry::kernels
