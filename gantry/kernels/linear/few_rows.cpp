#include "gantry/kernels/linear/few_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "gantry/kernels/common.h"
#include "gantry/kernels/linear/linear_raw.h"

namespace gantry::kernels {
namespace {

template <class Raw>
void run_small(const at::Tensor& x, const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
               const at::Tensor& y) {
  const std::int64_t rows = row_count(x), k = x.size(-1);
  // Reused from call to call: this runs some hundred times for each decoded token.
  thread_local std::vector<float> scratch;
  scratch.resize(static_cast<std::size_t>(rows * k));
  float* const order = scratch.data();  // the calling thread's, also inside the parallel loop
  for (std::int64_t r = 0; r < rows; ++r) {
    GANTRY_ISA_SELECT(deinterleave<Raw>)(raw_const<Raw>(x) + r * k, k, order + r * k);
  }
  const auto kernel = GANTRY_ISA_SELECT(small_linear<Raw>);
  const std::int64_t total = y.size(-1);
  // One fork for all weights: a piece of the joint column range may span several of them.
  at::parallel_for(0, total, std::max<std::int64_t>(16, 65536 / k), [&](std::int64_t begin, std::int64_t end) {
    std::int64_t first = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const std::int64_t n = weights[i].size(0);
      const std::int64_t from = std::max(begin, first) - first, to = std::min(end, first + n) - first;
      if (from < to) {
        kernel({.x = order,
                .rows = rows,
                .k = k,
                .w = raw_const<Raw>(weights[i]),
                .bias = biases.empty() ? nullptr : raw_const<Raw>(biases[i]),
                .y = raw<Raw>(y) + first,
                .y_stride = total},
               from, to);
      }
      first += n;
    }
  });
}

}  // namespace

bool few_rows_apply(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                    const std::vector<at::Tensor>& biases) {
  if (!has_raw_kernel(x) || x.numel() == 0 || row_count(x) > kMaxSmallRows) return false;
  const auto dense = [](const at::Tensor& tensor) { return tensor.is_contiguous(); };
  return std::all_of(weights.begin(), weights.end(), dense) && std::all_of(biases.begin(), biases.end(), dense);
}

at::Tensor few_rows_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                           const std::vector<at::Tensor>& biases) {
  const at::Tensor dense = x.contiguous();
  auto shape = x.sizes().vec();
  shape.back() = 0;
  for (const auto& weight : weights) shape.back() += weight.size(0);
  at::Tensor y = at::empty(shape, x.options());
  dispatch_raw(x.scalar_type(), [&]<class Raw>() { run_small<Raw>(dense, weights, biases, y); });
  return y;
}

}  // namespace gantry::kernels
