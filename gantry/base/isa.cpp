#include "gantry/base/isa.h"

#include <atomic>

#include "gantry/base/check.h"
#include "gantry/base/env.h"

namespace gantry::base {
namespace {

std::atomic<int> latched{-1};

Isa choose() {
  const Isa best = best_isa();
  const auto wanted = env("GANTRY_ISA");
  if (!wanted) return best;
  for (const Isa candidate : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (*wanted != isa_name(candidate)) continue;
    GANTRY_CHECK(candidate <= best, "GANTRY_ISA={}: this processor supports {} at most", *wanted, isa_name(best));
    return candidate;
  }
  fail_input("GANTRY_ISA: expected scalar, avx2, avx512 or avx512_bf16, got '{}'", *wanted);
}

}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::kScalar;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? Isa::kAvx512Bf16 : Isa::kAvx512;
#else
  return Isa::kScalar;
#endif
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
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::base
