#include "gantry/spec/memory_modes.h"

#include "gantry/base/check.h"

namespace gantry::spec {
namespace {

AttentionMemory attention_memory(MemoryMode mode) {
  switch (mode) {
    case MemoryMode::kStore: return AttentionMemory::kStore;
    case MemoryMode::kInPlace: return AttentionMemory::kInPlace;
    case MemoryMode::kRecompute: return AttentionMemory::kFlash;
    case MemoryMode::kRerun: return AttentionMemory::kRerun;
    case MemoryMode::kInt8: return AttentionMemory::kInt8;
  }
  GANTRY_UNREACHABLE();
}

ActivationMemory activation_memory(MemoryMode mode) {
  switch (mode) {
    case MemoryMode::kStore: return ActivationMemory::kStore;
    case MemoryMode::kInPlace: return ActivationMemory::kInPlace;
    case MemoryMode::kRecompute: return ActivationMemory::kRecompute;
    case MemoryMode::kRerun: return ActivationMemory::kRerun;
    case MemoryMode::kInt8: return ActivationMemory::kInt8;
  }
  GANTRY_UNREACHABLE();
}

NormMemory norm_memory(MemoryMode mode) {
  switch (mode) {
    case MemoryMode::kStore: return NormMemory::kStore;
    case MemoryMode::kInPlace:
    case MemoryMode::kRecompute:
    case MemoryMode::kRerun: return NormMemory::kInPlace;
    case MemoryMode::kInt8: return NormMemory::kInt8;
  }
  GANTRY_UNREACHABLE();
}

}  // namespace

GraphOptions with_memory(GraphOptions options, const LayerMemory& memory) {
  options.attention = attention_memory(memory.attention);
  options.activation = activation_memory(memory.mlp);
  options.norm = norm_memory(memory.norm);
  // Where attention and MLP stay as they are, so do their masks.
  if (!options.attention_masks) options.attention_masks = options.masks;
  if (memory.attention == MemoryMode::kInPlace) options.attention_masks = MaskMemory::kReplay;
  if (memory.mlp == MemoryMode::kInPlace) options.side_flags = MaskMemory::kBit;
  if (memory.norm != MemoryMode::kStore) options.masks = MaskMemory::kReplay;
  return options;
}

MemoryCost memory_cost(const ModelConfig& config, const GraphOptions& options) {
  ModelConfig shallow = config;
  shallow.num_layers = 2;
  const OperatorGraph graph = operator_graph(shallow, options);
  const NodeRange layer = graph.layer(1);
  MemoryCost cost;
  cost.saved_bytes = graph.saved_bytes(layer);
  for (int i = layer.first; i < layer.end; ++i) {
    const GraphNode& node = graph.nodes()[static_cast<std::size_t>(i)];
    cost.extra_matrix_flops += node.extra_matrix_flops;
    cost.extra_vector_flops += node.extra_vector_flops;
    cost.extra_bytes += node.extra_bytes;
  }
  return cost;
}

}  // namespace gantry::spec
