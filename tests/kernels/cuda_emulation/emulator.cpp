// Some compilers define this by themselves; a checked longjmp refuses to leave one stack for another.
#undef _FORTIFY_SOURCE
#include "tests/kernels/cuda_emulation/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gantry/base/random.h"
#include "tests/kernels/cuda_emulation/cuda_runtime.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

cuda_emulation::Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulation {
namespace {

constexpr unsigned kLanes = 32;
constexpr std::size_t kStackBytes = 128 * 1024, kGuardBytes = 256;
constexpr unsigned char kPoison = 0xff, kGuard = 0xa5;  // floats of poison are NaN

enum class State : std::uint8_t { kReady, kAtBarrier, kAtWarp, kDone };

// A stack and a place in it. swapcontext asks the kernel for the signal mask each time, so that it only begins fibers.
struct Context {
  ucontext_t fresh;
  jmp_buf place;
};

struct Fiber {
  Context context;
  bool begun = false;  // stands somewhere in fiber_main
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  State state = State::kDone;
  WarpOperation operation{};
  unsigned turn = 0;  // which of the warp's two sets of values its next exchange uses
};

// A lane can only come to its next exchange but one when all have read the values of this one: two sets suffice.
struct Warp {
  std::array<std::array<std::uint64_t, kLanes>, 2> values;
};

struct Machine {
  Order order = Order::kForward;
  std::map<const void*, std::size_t> allowed;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  std::size_t shared_bytes = 0;
  Context scheduler;
  unsigned current = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr failure;
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
};

Machine& machine() {
  static Machine instance;
  return instance;
}

#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer has to be told which stack is in use, and knows swapcontext.
void switch_to(Context& from, Context& to, bool, const void* stack, std::size_t bytes) {
  void* saved = nullptr;
  __sanitizer_start_switch_fiber(&saved, stack, bytes);
  swapcontext(&from.fresh, &to.fresh);
  __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}
#else
void switch_to(Context& from, Context& to, bool begun, const void*, std::size_t) {
  if (_setjmp(from.place) != 0) return;
  if (begun) _longjmp(to.place, 1);
  setcontext(&to.fresh);
}
#endif

[[noreturn]] void fail(const std::string& what) {
  throw std::logic_error("emulated kernel, block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) +
                         ", " + std::to_string(blockIdx.z) + "): " + what);
}

// From a fiber to the scheduler, until the scheduler finds it ready again.
void wait_as(State state) {
  Machine& m = machine();
  Fiber& self = *m.fibers[m.current];
  self.state = state;
  switch_to(self.context, m.scheduler, true, m.scheduler_stack, m.scheduler_stack_bytes);
}

void fiber_main() {
  Machine& m = machine();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
#endif
  for (;;) {  // one block after another
    try {
      (*m.body)();
    } catch (...) {
      m.failure = std::current_exception();
    }
    wait_as(State::kDone);
  }
}

void resume(unsigned thread) {
  Machine& m = machine();
  m.current = thread;
  threadIdx = Dim3(thread, 0, 0);
  Fiber& fiber = *m.fibers[thread];
  switch_to(m.scheduler, fiber.context, std::exchange(fiber.begun, true), fiber.stack.get(), kStackBytes);
  if (m.failure) std::rethrow_exception(std::exchange(m.failure, nullptr));
}

std::vector<unsigned> turns(unsigned count, std::uint64_t seed) {
  std::vector<unsigned> result(count);
  for (unsigned i = 0; i < count; ++i) result[i] = i;
  const Order order = machine().order;
  if (order == Order::kBackward) std::reverse(result.begin(), result.end());
  if (order == Order::kShuffled) {
    gantry::base::CounterRandom random(seed);
    for (unsigned i = count; i > 1; --i) std::swap(result[i - 1], result[random.below(i)]);
  }
  return result;
}

bool release_warp(unsigned first) {
  Machine& m = machine();
  for (unsigned i = first; i < first + kLanes; ++i) {
    if (m.fibers[i]->state != State::kAtWarp) return false;
    if (m.fibers[i]->operation != m.fibers[first]->operation) {
      fail("lanes of the warp of thread " + std::to_string(first) + " are at different operations");
    }
  }
  for (unsigned i = first; i < first + kLanes; ++i) m.fibers[i]->state = State::kReady;
  return true;
}

void make_fibers(unsigned count) {
  Machine& m = machine();
  while (m.fibers.size() < count) {
    m.fibers.push_back(std::make_unique<Fiber>());
    Fiber& fiber = *m.fibers.back();
    getcontext(&fiber.context.fresh);
    fiber.context.fresh.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.fresh.uc_stack.ss_size = kStackBytes;
    fiber.context.fresh.uc_link = nullptr;
    makecontext(&fiber.context.fresh, fiber_main, 0);
  }
}

// Runs a warp until its threads have ended or wait at a barrier of the block (or some wait for lanes that never come).
void run_warp(unsigned first, const std::vector<unsigned>& lanes) {
  do {
    for (const unsigned lane : lanes) {
      if (machine().fibers[first + lane]->state == State::kReady) resume(first + lane);
    }
  } while (release_warp(first));
}

// Between two barriers each warp runs ahead of the ones behind it as far as it can.
void run_block(unsigned threads, std::uint64_t block) {
  Machine& m = machine();
  for (unsigned i = 0; i < threads; ++i) m.fibers[i]->state = State::kReady;
  const std::vector<unsigned> warps = turns(threads / kLanes, block), lanes = turns(kLanes, block + 1);
  const auto count_of = [&](State state) {
    return std::count_if(m.fibers.begin(), m.fibers.begin() + threads,
                         [state](const auto& fiber) { return fiber->state == state; });
  };
  for (;;) {
    for (const unsigned warp : warps) run_warp(warp * kLanes, lanes);
    const auto waiting = count_of(State::kAtBarrier);
    if (count_of(State::kDone) == threads) return;
    if (waiting != threads) {
      fail(std::to_string(waiting) + " of " + std::to_string(threads) + " threads wait at a barrier, " +
           std::to_string(count_of(State::kAtWarp)) + " at a warp operation, " +
           std::to_string(count_of(State::kDone)) + " have ended");
    }
    for (unsigned i = 0; i < threads; ++i) m.fibers[i]->state = State::kReady;
  }
}

// With fresh shared memory, whose end is watched.
void run_guarded(unsigned threads, std::uint64_t block) {
  Machine& m = machine();
  m.shared.assign(m.shared_bytes + kGuardBytes + 16, kPoison);
  auto* guard = static_cast<unsigned char*>(dynamic_shared()) + m.shared_bytes;
  std::memset(guard, kGuard, kGuardBytes);
  run_block(threads, block);
  if (std::any_of(guard, guard + kGuardBytes, [](unsigned char byte) { return byte != kGuard; })) {
    fail("wrote behind its " + std::to_string(m.shared_bytes) + " bytes of dynamic shared memory");
  }
}

}  // namespace

void set_order(Order order) { machine().order = order; }

bool allow_shared(const void* kernel, std::size_t bytes) {
  if (bytes > kMostSharedBytes) return false;
  machine().allowed[kernel] = bytes;
  return true;
}

bool run(const void* kernel, Dim3 grid, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body) {
  Machine& m = machine();
  const auto allowed = m.allowed.find(kernel);
  if (threads == 0 || threads > 1024 || threads % kLanes != 0) return false;
  if (grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535)
    return false;
  if (shared_bytes > kUnaskedSharedBytes && (allowed == m.allowed.end() || allowed->second < shared_bytes))
    return false;
  make_fibers(threads);
  m.warps.resize(threads / kLanes);
  m.body = &body;
  m.shared_bytes = shared_bytes;
  blockDim = Dim3(threads);
  gridDim = grid;
  const unsigned blocks = grid.x * grid.y * grid.z;
  try {
    for (const unsigned block : turns(blocks, 99)) {
      blockIdx = Dim3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
      run_guarded(threads, block);
    }
  } catch (...) {
    m.fibers.clear();  // some stand in the middle of the kernel
    throw;
  }
  return true;
}

void block_barrier() { wait_as(State::kAtBarrier); }

std::uint64_t exchange(WarpOperation operation, unsigned mask, std::uint64_t value, unsigned source) {
  if (mask != 0xffffffffu) fail("a warp operation without all lanes in its mask");
  Machine& m = machine();
  const unsigned lane = m.current % kLanes;
  Fiber& self = *m.fibers[m.current];
  auto& values = m.warps[m.current / kLanes].values[self.turn];
  self.turn ^= 1;
  self.operation = operation;
  values[lane] = value;
  wait_as(State::kAtWarp);
  return values[source % kLanes];
}

unsigned vote(unsigned mask, bool value) {
  Machine& m = machine();
  auto& values = m.warps[m.current / kLanes].values[m.fibers[m.current]->turn];
  exchange(WarpOperation::kVote, mask, value ? 1 : 0, 0);
  unsigned bits = 0;
  for (unsigned i = 0; i < kLanes; ++i) bits |= values[i] != 0 ? 1u << i : 0u;
  return bits;
}

void* dynamic_shared() {
  auto at = reinterpret_cast<std::uintptr_t>(machine().shared.data());
  return reinterpret_cast<void*>((at + 15) / 16 * 16);
}

}  // namespace cuda_emulation
