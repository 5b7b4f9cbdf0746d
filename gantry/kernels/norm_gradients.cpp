#include "gantry/kernels/norm_gradients.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {

std::int64_t row_parts(std::int64_t rows) {
  return std::max<std::int64_t>(1, std::min<std::int64_t>(at::get_num_threads(), rows));
}

void for_row_parts(std::int64_t rows, std::int64_t parts,
                   const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& body) {
  at::parallel_for(0, parts, 1, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t part = from; part < to; ++part) body(part, rows * part / parts, rows * (part + 1) / parts);
  });
}

at::Tensor deliver_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  auto* sinks = tensor::GradientSinks::active();
  auto* slot = sinks == nullptr ? nullptr : sinks->find(parameter);
  if (slot == nullptr) return gradient.to(parameter.scalar_type());
  tensor::accumulate(*slot, gradient);
  return {};
}

}  // namespace gantry::kernels
