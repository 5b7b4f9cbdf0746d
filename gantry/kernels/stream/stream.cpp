#include "gantry/kernels/stream/stream.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <numeric>
#include <vector>

#include "gantry/kernels/common.h"
#include "gantry/kernels/stream/stream_raw.h"

namespace gantry::kernels {

double stream_sum(const at::Tensor& x) {
  GANTRY_CHECK(x.is_cpu() && x.is_contiguous() && x.scalar_type() == at::kFloat,
               "stream_sum: expected a contiguous fp32 CPU tensor, got {} on {}", c10::toString(x.scalar_type()),
               c10::str(x.device()));
  const std::int64_t parts = at::get_num_threads();
  std::vector<double> partial(static_cast<std::size_t>(parts));
  const auto kernel = GANTRY_ISA_SELECT(stream_sum);
  at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      partial[static_cast<std::size_t>(i)] =
          static_cast<double>(kernel(raw_const<float>(x), x.numel() * i / parts, x.numel() * (i + 1) / parts));
    }
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

}  // namespace gantry::kernels
