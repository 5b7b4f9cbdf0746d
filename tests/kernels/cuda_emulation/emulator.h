#pragma once
// Runs CUDA kernels, compiled as C++, on the CPU: blocks one after another, a block's threads as fibers that take turns
// at barriers and at warp operations; between barriers a warp runs ahead of the others as far as it can. It finds what
// order reveals (run a kernel in several orders and compare), barriers that only some threads reach, warp operations
// without all lanes, and writes behind dynamic shared memory: these throw std::logic_error out of the launch. It shows
// neither speed nor what a GPU's memory model and mathematical functions do differently. One launch at a time.
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_emulation {

/// Order in which blocks, the warps of a block and the lanes of a warp take their turns.
enum class Order { kForward, kBackward, kShuffled };

/// For launches from now on.
void set_order(Order order);

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  Dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
};

/// What a warp's lanes do together.
enum class WarpOperation : std::uint8_t { kSynchronise, kShuffle, kVote };

/// Largest dynamic shared memory of a block that asks for it, and without asking: those of compute capability 8.0.
inline constexpr std::size_t kMostSharedBytes = 163 * 1024, kUnaskedSharedBytes = 48 * 1024;

/// False: refused, as a GPU would refuse the numbers.
bool run(const void* kernel, Dim3 grid, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body);
bool allow_shared(const void* kernel, std::size_t bytes);

// Called by threads of a kernel.
void block_barrier();
/// Hands in `value` for this lane; when all lanes have, that of lane `source` comes back.
std::uint64_t exchange(WarpOperation operation, unsigned mask, std::uint64_t value, unsigned source);
/// Bit i: whether lane i handed in something else than zero.
unsigned vote(unsigned mask, bool value);
void* dynamic_shared();

}  // namespace cuda_emulation
