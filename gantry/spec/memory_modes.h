#pragma once
// What the layers' memory modes keep and cost, by the operator graph: bytes, and what is computed again.
#include "gantry/spec/memory_mode.h"
#include "gantry/spec/operator_graph.h"

namespace gantry::spec {

/// An element kept in int8: a byte, and two bytes of scale for every 64 elements of a tensor (gantry/kernels/stash).
/// Exact where 64 divides the tensor's elements, else up to two bytes a tensor too few.
inline constexpr double kInt8ElementBytes = 1 + 2.0 / 64;

/// `options` with these modes. Hidden dropout belongs to the norm that follows it: kStore leaves `masks` as it is, the
/// other modes replay masks from their seeds. numbers_in_last_bits stays as it is: set it for what layers on a CPU
/// keep.
GraphOptions with_memory(GraphOptions options, const LayerMemory& memory);

/// Of one inner layer on one rank, for one micro-batch.
struct MemoryCost {
  SymbolicSize saved_bytes;
  // What backward computes again or unpacks and forward packs; nothing where only what is kept differs.
  SymbolicSize extra_matrix_flops;
  SymbolicSize extra_vector_flops;
  SymbolicSize extra_bytes;  ///< moved by that
};

/// `options` as in operator_graph(), its memory modes included.
MemoryCost memory_cost(const ModelConfig& config, const GraphOptions& options);
inline MemoryCost memory_cost(const ModelConfig& config, const GraphOptions& options, const LayerMemory& memory) {
  return memory_cost(config, with_memory(options, memory));
}

}  // namespace gantry::spec
