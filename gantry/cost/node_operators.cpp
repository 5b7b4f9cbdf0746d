#include "gantry/cost/node_operators.h"

#include <cmath>

#include "gantry/base/check.h"
#include "gantry/cost/roofline.h"

namespace gantry::cost {
namespace {

using spec::GraphNode;
using spec::GraphTensor;
using spec::OperatorGraph;
using spec::OpKind;

// In-place attention drops without keeping the result, in a second matrix of workspace.
bool drops_probabilities(const OperatorGraph& graph, const GraphNode& node) {
  for (const int id : node.outputs) {
    const GraphTensor& tensor = graph.tensors()[static_cast<std::size_t>(id)];
    if (tensor.name.ends_with(".dropped")) return true;
    if (tensor.name.ends_with(".probabilities") && node.workspace_bytes == tensor.bytes * 2) return true;
  }
  return false;
}

class Mapper {
 public:
  Mapper(const OperatorGraph& graph, const GraphNode& node, const spec::Bindings& sizes, bool skip_edge_norms)
      : graph_(graph), node_(node), sizes_(sizes), skip_edge_norms_(skip_edge_norms) {}

  std::vector<OperatorUse> map() const;

 private:
  const GraphTensor& input(std::size_t i) const { return tensor(node_.inputs[i]); }
  const GraphTensor& output() const { return tensor(node_.outputs[0]); }
  const GraphTensor& tensor(int index) const { return graph_.tensors()[static_cast<std::size_t>(index)]; }

  std::int64_t whole(double value) const {
    const double rounded = std::round(value);
    GANTRY_CHECK(rounded >= 1 && std::abs(value - rounded) < 1e-6,
                 "{}: tensor parallelism over {} devices does not divide a size evenly ({:.6g} on each)", node_.name,
                 sizes_.tensor_parallel, value);
    return static_cast<std::int64_t>(rounded);
  }
  std::int64_t extent(const GraphTensor& tensor) const { return whole(tensor.shape.back().evaluate(sizes_)); }
  /// All extents but the last.
  std::int64_t rows(const GraphTensor& tensor) const {
    double product = 1;
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) product *= tensor.shape[i].evaluate(sizes_);
    return whole(product);
  }
  std::int64_t elements(const GraphTensor& tensor) const { return rows(tensor) * extent(tensor); }
  /// Of a micro-batch. Shapes may show fewer: sequence parallelism splits what lies between the products.
  std::int64_t tokens() const { return whole(sizes_.batch * sizes_.sequence); }

  std::vector<OperatorUse> embedding() const;
  std::vector<OperatorUse> linear() const;
  std::vector<OperatorUse> loss() const;
  std::vector<OperatorUse> attention() const;
  std::vector<std::int64_t> attention_sizes(const GraphTensor& q, const GraphTensor& k) const;
  std::int64_t vocabulary() const;

  const OperatorGraph& graph_;
  const GraphNode& node_;
  const spec::Bindings& sizes_;
  const bool skip_edge_norms_;
};

// The width of the logits; the embedding's own elements do not tell its tables apart.
std::int64_t Mapper::vocabulary() const {
  for (const GraphNode& node : graph_.nodes()) {
    if (node.kind == OpKind::kHead) return extent(tensor(node.outputs[0]));
    if (node.kind == OpKind::kLoss && !node.matrix_flops.is_zero()) {
      const GraphTensor& hidden = tensor(node.inputs[0]);
      return whole(node.matrix_flops.evaluate(sizes_) / (2.0 * static_cast<double>(tokens() * extent(hidden))));
    }
  }
  GANTRY_UNREACHABLE();
}

std::vector<OperatorUse> Mapper::embedding() const {
  const std::int64_t width = extent(output());
  std::vector<OperatorUse> uses{{.op = "embedding", .sizes = {tokens(), width, vocabulary()}}};
  if (skip_edge_norms_) return uses;
  // Positions and token types are added row by row.
  for (std::size_t i = 1; i < node_.inputs.size(); ++i) {
    uses.push_back({.op = "residual_add", .sizes = {elements(output())}});
  }
  return uses;
}

std::vector<OperatorUse> Mapper::linear() const {
  GANTRY_CHECK(!node_.backward_matrix_flops.is_zero(), "{}: only graphs of training can be priced", node_.name);
  std::int64_t out = 0;
  for (const int id : node_.outputs) out += extent(tensor(id));
  const std::int64_t in = extent(input(0));
  const double rows = node_.matrix_flops.evaluate(sizes_) / (2.0 * static_cast<double>(in * out));
  return {{.op = "linear", .sizes = {whole(rows), in, out}}};
}

std::vector<OperatorUse> Mapper::loss() const {
  const std::int64_t vocab = vocabulary();
  std::vector<OperatorUse> uses;
  const bool chunked = !node_.matrix_flops.is_zero();
  if (chunked) uses.push_back({.op = "linear", .sizes = {tokens(), extent(input(0)), vocab}, .again = true});
  uses.push_back({.op = "cross_entropy", .sizes = {tokens(), vocab}, .again = chunked});
  uses.push_back({.op = "mean", .sizes = {tokens()}, .by_product = true});
  if (!chunked) uses.push_back({.op = "cast", .sizes = {tokens(), vocab}, .by_product = true});
  return uses;
}

std::vector<std::int64_t> Mapper::attention_sizes(const GraphTensor& q, const GraphTensor& k) const {
  const auto dim = static_cast<double>(node_.head_dim);
  return {whole(sizes_.batch), whole(static_cast<double>(extent(q)) / dim), whole(static_cast<double>(extent(k)) / dim),
          whole(sizes_.sequence), node_.head_dim};
}

std::vector<OperatorUse> Mapper::attention() const {
  const auto sizes = attention_sizes(input(0), input(1));
  if (node_.score_bytes.is_zero()) {
    const double causal = operator_work("attention_flash", sizes, 2).forward.flops;
    return {{.op = "attention_flash", .sizes = sizes, .flops_share = node_.matrix_flops.evaluate(sizes_) / causal}};
  }
  std::vector<OperatorUse> uses;
  for (const char* op : {"attention_scores", "attention_softmax", "attention_values"}) {
    uses.push_back({.op = op, .sizes = sizes});
  }
  if (drops_probabilities(graph_, node_)) uses.push_back({.op = "attention_dropout", .sizes = sizes});
  for (const char* op : {"attention_transpose_1", "attention_transpose_2", "attention_transpose_3"}) {
    uses.push_back({.op = op, .sizes = sizes, .by_product = true});
  }
  return uses;
}

std::vector<OperatorUse> Mapper::map() const {
  switch (node_.kind) {
    case OpKind::kEmbedding: return embedding();
    case OpKind::kNorm:
      if (skip_edge_norms_ && node_.layer < 0) return {};
      return {{.op = "norm", .sizes = {rows(output()), extent(output())}}};
    case OpKind::kLinear:
    case OpKind::kHead: return linear();
    case OpKind::kRope: return {{.op = "rope", .sizes = attention_sizes(input(0), input(1))}};
    case OpKind::kAttention: return attention();
    case OpKind::kGatedActivation: return {{.op = "gated_activation", .sizes = {elements(output())}}};
    case OpKind::kActivation: return {{.op = "activation", .sizes = {elements(output())}}};
    case OpKind::kResidualAdd: return {{.op = "residual_add", .sizes = {elements(output())}}};
    case OpKind::kDropout: return {{.op = "dropout", .sizes = {elements(output())}}};
    case OpKind::kLoss: return loss();
  }
  GANTRY_UNREACHABLE();
}

}  // namespace

std::vector<OperatorUse> operators_of(const OperatorGraph& graph, const GraphNode& node, const spec::Bindings& sizes,
                                      bool skip_edge_norms) {
  return Mapper(graph, node, sizes, skip_edge_norms).map();
}

}  // namespace gantry::cost
