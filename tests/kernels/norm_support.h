#pragma once
// What the tests of plain and of in-place norms share.
#include "gantry/kernels/layer_norm/layer_norm.h"
#include "gantry/kernels/rms_norm/rms_norm.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels::testing {

inline constexpr double kNormEps = 1e-5;

inline const std::vector<std::vector<std::int64_t>> kNormShapes{{4, 1, 33},   {1, 64},       {577},
                                                                {3, 40, 100}, {2, 5, 7, 16}, {700, 48}};

inline variable_list rms_plain(const variable_list& in) { return {rms_norm_reference(in[0], in[1], kNormEps)}; }
inline variable_list layer_plain(const variable_list& in) {
  return {layer_norm_reference(in[0], in[1], in[2], kNormEps)};
}

}  // namespace gantry::kernels::testing
