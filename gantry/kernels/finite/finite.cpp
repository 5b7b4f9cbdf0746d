#include "gantry/kernels/finite/finite.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>

#include "gantry/kernels/common.h"
#include "gantry/kernels/finite/finite_raw.h"

namespace gantry::kernels {

bool all_finite(const at::Tensor& x) {
  if (!has_raw_kernel(x) || !x.is_contiguous()) return x.isfinite().all().item<bool>();
  std::atomic<bool> finite{true};
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(all_finite<Raw>);
    at::parallel_for(0, x.numel(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
      if (!kernel(raw_const<Raw>(x), begin, end)) finite.store(false, std::memory_order_relaxed);
    });
  });
  return finite.load();
}

}  // namespace gantry::kernels
