#include "gantry/base/isa.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "gantry/base/check.h"
#include "gantry/base/env.h"

namespace gantry::base {
namespace {

std::atomic<int> latched{-1};

Isa choose() {
  const Isa best = best_isa();
  const auto wanted = env("GANTRY_ISA");
  if (!wanted) return best;
  for (const Isa candidate : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (*wanted != isa_name(candidate)) continue;
    GANTRY_CHECK(candidate <= best, "GANTRY_ISA={}: this processor supports {} at most", *wanted, isa_name(best));
    return candidate;
  }
  fail_input("GANTRY_ISA: expected scalar, avx2, avx512, avx512_bf16 or amx, got '{}'", *wanted);
}

#if defined(__x86_64__)
// Tiles hold 8 KiB of state that Linux saves for processes that ask (5.16 and newer). A granted request also says that
// the system has switched that state on (XCR0).
bool amx_granted() {
#if defined(__linux__)
  constexpr unsigned kFeatures = 7, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(kFeatures, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Isa find_best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::kScalar;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::kAvx512;
  return amx_granted() ? Isa::kAmx : Isa::kAvx512Bf16;
#else
  return Isa::kScalar;
#endif
}

}  // namespace

Isa best_isa() {
  static const Isa best = find_best();
  return best;
}

Isa isa() {
  int value = latched.load(std::memory_order_relaxed);
  if (value < 0) {
    value = static_cast<int>(choose());
    latched.store(value, std::memory_order_relaxed);
  }
  return static_cast<Isa>(value);
}

void reset_isa_for_testing() { latched.store(-1); }

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAmx: return "amx";
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::base
