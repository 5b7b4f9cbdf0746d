// Method: dropout (Srivastava et al. 2014) whose mask is drawn again in backward instead of stored.
#include <algorithm>

#include "gantry/kernels/cpu/philox.h"
#include "gantry/kernels/cpu/simd.h"
#include "gantry/kernels/dropout/dropout_raw.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

template <class T>
void dropout_apply(const DropoutArgs<T>& args, std::int64_t begin, std::int64_t end) {
  const float scale = keep_scale(args.rule.threshold);
  for (std::int64_t block = begin; block < end; ++block) {
    const std::int64_t first = block * kDropoutBlock, count = std::min(kDropoutBlock, args.count - first);
    const auto bytes = static_cast<std::size_t>((count + 7) / 8);
    std::uint8_t keep[kDropoutBlock / 8 + 1];  // a vector of a short rest reads two bytes
    keep[bytes] = 0;
    if (args.bits_are_given) {
      std::memcpy(keep, args.bits + first / 8, bytes);
    } else {
      philox_keep_bits(args.rule, static_cast<std::uint64_t>(first), count, keep);
      if (args.bits != nullptr) std::memcpy(args.bits + first / 8, keep, bytes);
    }
    for_vectors(count, [&](std::int64_t i, std::int64_t lanes) {
      set(args.y + first + i, get(args.x + first + i, lanes) * keep_factors(keep_bits_at(keep + i / 8), scale), lanes);
    });
  }
}

template void dropout_apply<float>(const DropoutArgs<float>&, std::int64_t, std::int64_t);
template void dropout_apply<Bf16>(const DropoutArgs<Bf16>&, std::int64_t, std::int64_t);

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
