#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/spec/graph_builder_internal.h"
#include "gantry/spec/sharding.h"

namespace gantry::spec::internal {
namespace {

constexpr double kIdBytes = 8;
constexpr double kStatisticBytes = 4;

// Nominal element-wise flops an element.
constexpr int kLayerNormFlops = 8;
constexpr int kRmsNormFlops = 5;
constexpr int kDropoutFlops = 2;

int activation_flops(Activation activation) {
  switch (activation) {
    case Activation::kSilu: return 5;
    case Activation::kGeluErf: return 8;
    case Activation::kGeluTanh: return 10;
    case Activation::kQuickGelu: return 6;
    case Activation::kRelu: return 1;
  }
  GANTRY_UNREACHABLE();
}

SymbolicSize product(const std::vector<SymbolicSize>& shape) {
  SymbolicSize total = 1;
  for (const SymbolicSize& extent : shape) total *= extent;
  return total;
}

}  // namespace

GraphBuilder::GraphBuilder(const ModelConfig& config, const GraphOptions& options)
    : config_(config), options_(options), table_(tensor_table(config)) {
  table_of_layer_.resize(static_cast<std::size_t>(config.num_layers) + 1);
  for (std::size_t i = 0; i < table_.size(); ++i) {
    table_of_layer_[static_cast<std::size_t>(table_[i].layer + 1)].push_back(static_cast<int>(i));
  }
}

SymbolicSize GraphBuilder::kv_extent() const {
  return options_.kv_heads_repeated ? SymbolicSize(config_.head_dim) : per_rank(config_.kv_size());
}

SymbolicSize GraphBuilder::keys() const {
  return training() || !config_.is_decoder() ? Symbol::kSequence : Symbol::kContext;
}

SymbolicSize GraphBuilder::elements(int tensor) const {
  return product(graph_.tensors_[static_cast<std::size_t>(tensor)].shape);
}

std::vector<int> GraphBuilder::weights(std::initializer_list<std::string_view> parts) const {
  std::vector<int> found;
  for (const std::string_view part : parts) {
    for (const int index : table_of_layer_[static_cast<std::size_t>(layer_ + 1)]) {
      const TensorSpec& tensor = table_[static_cast<std::size_t>(index)];
      if (tensor.name.find(part) != std::string::npos) found.push_back(index);
    }
  }
  return found;
}

void GraphBuilder::begin_layer() {
  layer_ = graph_.num_layers();
  const int first = static_cast<int>(graph_.nodes_.size());
  graph_.layers_.push_back({first, first});
}

void GraphBuilder::end_layer() {
  graph_.layers_.back().end = static_cast<int>(graph_.nodes_.size());
  layer_ = -1;
}

GraphNode GraphBuilder::start(OpKind kind, std::string_view name) const {
  GraphNode node;
  node.kind = kind;
  node.name = layer_ >= 0 ? fmt::format("layers.{}.{}", layer_, name) : std::string(name);
  node.layer = layer_;
  return node;
}

int GraphBuilder::add_tensor(GraphTensor tensor) {
  graph_.tensors_.push_back(std::move(tensor));
  regenerated_.emplace_back();
  return static_cast<int>(graph_.tensors_.size()) - 1;
}

int GraphBuilder::input(std::string name, const std::vector<SymbolicSize>& shape) {
  return add_tensor({.name = std::move(name),
                     .producer = -1,
                     .shape = shape,
                     .bytes = product(shape) * kIdBytes,
                     .has_gradient = false});
}

int GraphBuilder::output(GraphNode& node, std::string_view name, const std::vector<SymbolicSize>& shape,
                         double element_bytes, bool has_gradient) {
  node.outputs.push_back(add_tensor({.name = name.empty() ? node.name : fmt::format("{}.{}", node.name, name),
                                     .producer = static_cast<int>(graph_.nodes_.size()),
                                     .shape = shape,
                                     .bytes = product(shape) * element_bytes,
                                     .has_gradient = has_gradient}));
  return node.outputs.back();
}

void GraphBuilder::gather_input(GraphNode& node, int x) const {
  if (!options_.sequence_parallel) return;
  const SymbolicSize whole = whole_bytes(x);
  node.workspace_bytes += whole;
  node.bytes_read += whole;
  node.backward_workspace_bytes += whole * 2;
  node.backward_bytes += whole * 2;
  node.backward_all_gather_bytes = whole;
}

void GraphBuilder::scatter_result(GraphNode& node, int y) const {
  if (!options_.sequence_parallel) return;
  const SymbolicSize whole = whole_bytes(y);
  node.workspace_bytes += whole;
  node.bytes_written += whole;
  node.backward_workspace_bytes += whole;
  node.backward_bytes += whole;
}

void GraphBuilder::finish_node(GraphNode node, bool again) {
  for (const int index : node.weights) {
    node.weight_elements +=
        shard_elements(config_, table_[static_cast<std::size_t>(index)], options_.kv_heads_repeated);
  }
  const SymbolicSize weight_bytes = node.weight_elements * options_.weight_bytes;
  for (const int x : node.inputs) node.bytes_read += bytes(x);
  for (const int y : node.outputs) node.bytes_written += bytes(y);
  // An embedding reads single rows of its table; its own method counts them.
  if (node.kind != OpKind::kEmbedding) node.bytes_read += weight_bytes;
  if (training()) {
    add_memory_mode(node, again);
    add_backward(node, weight_bytes);
  } else {
    node.backward_matrix_flops = node.backward_vector_flops = 0;
    node.backward_workspace_bytes = node.backward_all_reduce_bytes = 0;
  }
  graph_.nodes_.push_back(std::move(node));
}

void GraphBuilder::add_backward(GraphNode& node, const SymbolicSize& weight_bytes) const {
  const auto gradient_bytes = [&](const std::vector<int>& tensors) {
    SymbolicSize total;
    for (const int id : tensors) {
      if (graph_.tensors_[static_cast<std::size_t>(id)].has_gradient) total += bytes(id);
    }
    return total;
  };
  node.backward_bytes += graph_.bytes_of(node.saved) + gradient_bytes(node.inputs) + gradient_bytes(node.outputs);
  node.backward_bytes += weight_bytes * 2;  // the weights and their gradients
}

int GraphBuilder::embedding(const std::vector<int>& ids, std::vector<int> weights) {
  GraphNode node = start(OpKind::kEmbedding, "embedding");
  const std::int64_t tables = static_cast<std::int64_t>(weights.size());
  const SymbolicSize size = tokens() * config_.hidden_size;
  node.inputs = ids;
  node.weights = std::move(weights);
  node.bytes_read = size * tables * options_.weight_bytes;
  node.vector_flops = size * (tables - 1);
  const int y = result(node, {Symbol::kBatch, hidden_positions(), config_.hidden_size});
  node.all_reduce_bytes = whole_bytes(y);
  scatter_result(node, y);
  if (training()) node.saved = ids;
  finish_node(std::move(node));
  return y;
}

int GraphBuilder::norm(std::string_view name, int x, std::vector<int> weights) {
  GraphNode node = start(OpKind::kNorm, name);
  const bool centred = config_.family != Family::kLlama;
  node.inputs = {x};
  node.weights = std::move(weights);
  node.vector_flops = elements(x) * (centred ? kLayerNormFlops : kRmsNormFlops);
  node.backward_vector_flops = node.vector_flops * 2;
  const int y = result(node, graph_.tensors_[static_cast<std::size_t>(x)].shape);
  const bool again = training() && options_.norm == NormMemory::kRecompute;
  if (training()) {
    const bool kept_input = options_.norm == NormMemory::kStore || again;
    const int statistics = centred && kept_input ? 2 : 1;  // mean and 1/deviation, or the latter alone
    if (options_.norm == NormMemory::kInt8) {
      // What is packed is the normalised input: as wide as y.
      const std::set<int> needs = needs_of({y});
      stash(node, y);
      regenerate(y, needs);
    } else {
      node.saved = {kept_input ? x : y};
    }
    if (options_.norm != NormMemory::kInPlace || !in_last_bits(config_.hidden_size)) {
      node.saved.push_back(output(node, "statistics", {SymbolicSize(Symbol::kBatch) * hidden_positions(), statistics},
                                  kStatisticBytes, false));
    }
    if (again) regenerate(y, {y});
  }
  finish_node(std::move(node), again);
  return y;
}

std::vector<int> GraphBuilder::linear(int x, const LinearSpec& spec) {
  GraphNode node = start(OpKind::kLinear, spec.name);
  node.inputs = {x};
  node.weights = spec.weights;
  // A matrix that is not split works on the tokens that are here, a split one on all; rows add up to the former again.
  const bool split = spec.split != Split::kNone;
  const SymbolicSize positions = spec.split == Split::kColumns ? Symbol::kSequence : hidden_positions();
  const SymbolicSize rows = split ? tokens() : SymbolicSize(Symbol::kBatch) * positions;
  for (const LinearPart& part : spec.parts) {
    output(node, part.name, {Symbol::kBatch, positions, part.extent}, options_.activation_bytes, true);
    node.matrix_flops += rows * spec.in * part.extent * 2;
    if (spec.bias) node.vector_flops += SymbolicSize(Symbol::kBatch) * positions * part.extent;
  }
  node.backward_matrix_flops = node.matrix_flops * 2;
  node.backward_vector_flops = node.vector_flops;
  if (spec.split == Split::kRows) {
    node.all_reduce_bytes = whole_bytes(node.outputs[0]);
    scatter_result(node, node.outputs[0]);
  } else if (spec.split == Split::kColumns) {
    node.backward_all_reduce_bytes = whole_bytes(x);
    gather_input(node, x);
  }
  const std::vector<int> outputs = node.outputs;
  const bool again = training() && spec.memory == LinearMemory::kRerun;
  if (again) {
    for (const int y : outputs) {
      std::set<int> needs = needs_of({x});
      needs.insert(y);
      regenerate(y, std::move(needs));
    }
    node.backward_all_gather_bytes *= 2;
  }
  if (training() && spec.memory == LinearMemory::kInt8 && !regenerated(x)) stash(node, x);
  save_unless_regenerated(node, x);
  finish_node(std::move(node), again);
  return outputs;
}

int GraphBuilder::activation(std::string_view name, int x) {
  GraphNode node = start(OpKind::kActivation, name);
  node.inputs = {x};
  node.vector_flops = elements(x) * activation_flops(config_.activation);
  node.backward_vector_flops = node.vector_flops * 2;
  const int y = result(node, graph_.tensors_[static_cast<std::size_t>(x)].shape);
  keep_activation(node, y);
  finish_node(std::move(node), regenerated(y));
  return y;
}

int GraphBuilder::gated_activation(std::string_view name, int gate, int up) {
  GraphNode node = start(OpKind::kGatedActivation, name);
  node.inputs = {gate, up};
  node.vector_flops = elements(gate) * (activation_flops(config_.activation) + 1);
  node.backward_vector_flops = node.vector_flops * 2;
  const int y = result(node, graph_.tensors_[static_cast<std::size_t>(gate)].shape);
  keep_activation(node, y);
  finish_node(std::move(node), regenerated(y));
  return y;
}

int GraphBuilder::dropout(std::string_view name, int x) {
  if (!training() || config_.dropout <= 0) return x;
  GraphNode node = start(OpKind::kDropout, name);
  node.inputs = {x};
  node.vector_flops = node.backward_vector_flops = elements(x) * kDropoutFlops;
  const int y = result(node, graph_.tensors_[static_cast<std::size_t>(x)].shape);
  save_mask(node, elements(x), options_.masks);
  finish_node(std::move(node));
  return y;
}

int GraphBuilder::residual_add(std::string_view name, int x, int residual) {
  GraphNode node = start(OpKind::kResidualAdd, name);
  node.inputs = {x, residual};
  node.vector_flops = node.backward_vector_flops = elements(x);
  const int y = result(node, graph_.tensors_[static_cast<std::size_t>(x)].shape);
  finish_node(std::move(node));
  return y;
}

}  // namespace gantry::spec::internal
