// What nodes keep for backward, and what they make again there.
#include "gantry/spec/graph_builder_internal.h"
#include "gantry/spec/memory_modes.h"

namespace gantry::spec::internal {
namespace {

// An element: magnitude, maximum, product, rounding; and one product.
constexpr int kPackFlops = 4;
constexpr int kUnpackFlops = 1;

}  // namespace

void GraphBuilder::save_mask(GraphNode& node, const SymbolicSize& elements, MaskMemory masks) {
  if (masks == MaskMemory::kReplay) return;
  double element_bytes = masks == MaskMemory::kBit ? 0.125 : 1;
  if (masks == MaskMemory::kActivation && node.kind != OpKind::kActivation) element_bytes = options_.activation_bytes;
  node.saved.push_back(output(node, "mask", {elements}, element_bytes, false));
}

std::set<int> GraphBuilder::needs_of(const std::vector<int>& tensors) const {
  std::set<int> needs;
  for (const int id : tensors) {
    const std::set<int>& mine = regenerated_[static_cast<std::size_t>(id)];
    needs.insert(mine.begin(), mine.end());
  }
  return needs;
}

void GraphBuilder::save_unless_regenerated(GraphNode& node, int x) const {
  if (!training()) return;
  const std::set<int> needs = needs_of({x});
  if (needs.empty()) node.saved.push_back(x);
  node.backward_workspace_bytes += graph_.bytes_of({needs.begin(), needs.end()});
}

void GraphBuilder::stash(GraphNode& node, int x) {
  const GraphTensor& tensor = graph_.tensors_[static_cast<std::size_t>(x)];
  const std::string name = tensor.name + ".int8";
  node.saved.push_back(add_tensor({.name = name,
                                   .producer = static_cast<int>(graph_.nodes_.size()),
                                   .shape = tensor.shape,
                                   .bytes = elements(x) * kInt8ElementBytes,
                                   .has_gradient = false}));
  node.outputs.push_back(node.saved.back());
  packed_.push_back(x);
  regenerate(x, {x});
}

void GraphBuilder::keep_activation(GraphNode& node, int y) {
  if (!training()) return;
  const bool gated = node.kind == OpKind::kGatedActivation;
  ActivationMemory memory = options_.activation;
  // Only blocks of two matrices run one again or pack: the head's activation has none of its own.
  const bool of_block = memory == ActivationMemory::kRerun || memory == ActivationMemory::kInt8;
  if (of_block && layer_ < 0) memory = ActivationMemory::kRecompute;
  if (memory == ActivationMemory::kInPlace && !gated) {
    node.saved = {y};
    // The sign of a ReLU's output says all.
    if (config_.activation != Activation::kRelu) {
      save_mask(node, elements(y), options_.side_flags.value_or(options_.masks));
    }
    return;
  }
  for (const int x : std::vector<int>(node.inputs)) {
    if (memory == ActivationMemory::kInt8) stash(node, x);
    if (!regenerated(x)) node.saved.push_back(x);
  }
  if (memory == ActivationMemory::kStore) {
    const auto shape = graph_.tensors_[static_cast<std::size_t>(y)].shape;
    if (gated) node.saved.push_back(output(node, "activated", shape, options_.activation_bytes, false));
    return;
  }
  std::set<int> needs = needs_of(node.inputs);
  node.backward_workspace_bytes += graph_.bytes_of({needs.begin(), needs.end()});
  needs.insert(y);
  regenerate(y, std::move(needs));
}

void GraphBuilder::add_memory_mode(GraphNode& node, bool again) {
  SymbolicSize packed_elements;
  SymbolicSize packed_bytes;
  SymbolicSize int8_bytes;
  for (const int x : packed_) {
    packed_elements += elements(x);
    packed_bytes += bytes(x);
    int8_bytes += elements(x) * kInt8ElementBytes;
  }
  packed_.clear();
  SymbolicSize backward_vector_flops = packed_elements * kUnpackFlops;
  if (again) {
    node.extra_matrix_flops += node.matrix_flops;
    backward_vector_flops += node.vector_flops;
    node.extra_bytes += node.bytes_read + node.bytes_written - int8_bytes;
  }
  node.backward_matrix_flops += node.extra_matrix_flops;
  node.backward_vector_flops += backward_vector_flops;
  node.vector_flops += packed_elements * kPackFlops;
  node.extra_vector_flops += backward_vector_flops + packed_elements * kPackFlops;
  node.extra_bytes += packed_bytes * 3;  // read to be packed; written unpacked and read again
}

}  // namespace gantry::spec::internal
