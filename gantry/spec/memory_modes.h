#pragma once
// What the layers' memory modes keep and cost, by the operator graph: bytes, and what is computed again.
#include <array>
#include <string_view>

#include "gantry/spec/operator_graph.h"

namespace gantry::spec {

/// Of one module, by the names of gantry/layers/memory_mode.h. What each keeps:
///
///   mode         attention                       MLP                             norm
///   kStore       torch's math path               input and output of the         input and statistics
///                                               activation
///   kInPlace     Q, K, V, probabilities with     output of the activation and    output, 1/deviation
///                the mask in their sign          a bit an element (gated: as
///                                                kRecompute)
///   kRecompute   flash attention: Q, K, V,       input of the activation         as kInPlace
///                output, log-sums
///   kRerun       input of the projections        input of the block              as kInPlace
///   kInt8        inputs of the projections and   inputs of the block and of the  normalised input in int8,
///                Q, K, V in int8                 activation in int8              1/deviation
///
/// Every linear keeps its input besides; a tensor kept by two nodes counts once.
enum class MemoryMode { kStore, kInPlace, kRecompute, kRerun, kInt8 };

inline constexpr std::array<MemoryMode, 5> kMemoryModes = {
    MemoryMode::kStore, MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8};

/// store, in-place, recompute, rerun, int8.
std::string_view memory_mode_name(MemoryMode mode);
/// InputError that lists the names for another text.
MemoryMode parse_memory_mode(std::string_view name);

/// The modes of one transformer layer; defaults as in gantry/layers.
struct LayerMemory {
  MemoryMode attention = MemoryMode::kRecompute;
  MemoryMode mlp = MemoryMode::kRecompute;
  MemoryMode norm = MemoryMode::kInPlace;

  bool operator==(const LayerMemory&) const = default;
};

/// An element kept in int8: a byte, and two bytes of scale for every 64 elements of a tensor (gantry/kernels/stash).
/// Exact where 64 divides the tensor's elements, else up to two bytes a tensor too few.
inline constexpr double kInt8ElementBytes = 1 + 2.0 / 64;

/// `options` with these modes. Hidden dropout belongs to the norm that follows it: kStore leaves `masks` as it is, the
/// other modes replay masks from their seeds.
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
