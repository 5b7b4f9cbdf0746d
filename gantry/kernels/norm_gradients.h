#pragma once
// Parameter gradients of row-wise normalisations: per-thread partial sums, joined in a fixed order.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace gantry::kernels {

/// Splits [0, rows) into a fixed number of parts (independent of scheduling), calls body(part, begin, end) in parallel,
/// and returns how many parts there are for `rows`. Same result for any timing; depends on at::get_num_threads() only.
std::int64_t row_parts(std::int64_t rows);
void for_row_parts(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& body);

/// Delivers `gradient` (fp32 [n]) for `parameter`: to its slot of the active tensor::GradientSinks (then undefined is
/// returned), or as a tensor of the parameter's type.
at::Tensor deliver_gradient(const at::Tensor& parameter, const at::Tensor& gradient);

}  // namespace gantry::kernels
