#pragma once
// How the backward passes of norms sum the gradients of parameters: each block over its rows, then the blocks in a
// fixed order, so that equal inputs give equal bits.

namespace gantry::kernels::cuda {

/// Blocks of a backward pass, each with its own sums.
inline constexpr int kNormParts = 256;

}  // namespace gantry::kernels::cuda
