#pragma once
// Parameter gradients of row-wise normalisations: per-thread partial sums, joined in a fixed order.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace gantry::kernels {

/// How many parts `rows` are summed in: depends on at::get_num_threads() only, so ask outside of parallel regions.
std::int64_t row_parts(std::int64_t rows);
/// Splits [0, rows) into `parts` and calls body(part, begin, end) in parallel. Same result for any timing.
void for_row_parts(std::int64_t rows, std::int64_t parts,
                   const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& body);

/// Delivers `gradient` (fp32 [n]) for `parameter`: to its slot of the active tensor::GradientSinks (then undefined is
/// returned), or as a tensor of the parameter's type.
at::Tensor deliver_gradient(const at::Tensor& parameter, const at::Tensor& gradient);

}  // namespace gantry::kernels
