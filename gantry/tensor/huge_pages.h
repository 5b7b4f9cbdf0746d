#pragma once
// Memory on huge pages for weights that are streamed again and again: fewer page walks, and hardware prefetchers that
// stop at page boundaries stop 512 times less often.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace gantry::tensor {

/// Copies contiguous CPU tensors, one behind the other in the order given, into one area that asks the system for huge
/// pages (where it has none, ordinary pages serve). Returns views that keep the area alive.
std::vector<at::Tensor> copy_to_huge_pages(const std::vector<at::Tensor>& tensors);

}  // namespace gantry::tensor
