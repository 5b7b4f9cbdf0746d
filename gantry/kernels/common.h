#pragma once
// Helpers of the operators' checked entry points: element types and raw pointers.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/kernels/cpu/bf16.h"

#if AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "compile with -fopenmp: at::parallel_for would run on one thread"
#endif

namespace gantry::kernels {

/// True where the raw CPU kernels apply; other devices and types take the reference composition of ATen operators.
inline bool has_raw_kernel(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

/// True where autograd has something to record for one of these; undefined ones want nothing.
inline bool tracks_gradients(std::initializer_list<at::Tensor> inputs) {
  return c10::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& x) {
           return x.defined() && x.requires_grad();
         });
}

/// How a tensor that may be undefined is handed to an autograd function, which takes no undefined ones.
inline std::optional<at::Tensor> optional_of(const at::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

/// Calls body.template operator()<Raw>() with Raw = float or Bf16.
template <class Body>
decltype(auto) dispatch_raw(at::ScalarType type, Body&& body) {
  if (type == at::kBFloat16) return body.template operator()<Bf16>();
  GANTRY_ASSERT(type == at::kFloat);
  return body.template operator()<float>();
}

template <class Raw>
Raw* raw(const at::Tensor& x) {
  return x.defined() ? static_cast<Raw*>(x.data_ptr()) : nullptr;
}

template <class Raw>
const Raw* raw_const(const at::Tensor& x) {
  return x.defined() ? static_cast<const Raw*>(x.const_data_ptr()) : nullptr;
}

/// Rows of a tensor seen as [rows, last axis].
inline std::int64_t row_count(const at::Tensor& x) { return x.numel() == 0 ? 0 : x.numel() / x.size(-1); }

/// Piece size for at::parallel_for over rows of `width` elements: at least some 16k elements a piece.
inline std::int64_t row_grain(std::int64_t width) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, width));
}

}  // namespace gantry::kernels
