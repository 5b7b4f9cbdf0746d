#include "gantry/spec/operator_graph.h"

#include <algorithm>
#include <unordered_set>

#include "gantry/base/check.h"
#include "gantry/spec/graph_builder_internal.h"

namespace gantry::spec {

std::vector<int> OperatorGraph::inputs_of(NodeRange range) const {
  std::vector<int> found;
  std::unordered_set<int> seen;
  for (int i = range.first; i < range.end; ++i) {
    for (const int x : nodes_[static_cast<std::size_t>(i)].inputs) {
      if (tensors_[static_cast<std::size_t>(x)].producer < range.first && seen.insert(x).second) found.push_back(x);
    }
  }
  return found;
}

std::vector<int> OperatorGraph::saved_in(NodeRange range) const {
  std::vector<int> found;
  std::unordered_set<int> seen;
  for (int i = 0; i < range.end; ++i) {
    for (const int x : nodes_[static_cast<std::size_t>(i)].saved) {
      if (seen.insert(x).second && i >= range.first) found.push_back(x);
    }
  }
  return found;
}

SymbolicSize OperatorGraph::bytes_of(const std::vector<int>& tensors) const {
  SymbolicSize total;
  for (const int id : tensors) total += tensors_[static_cast<std::size_t>(id)].bytes;
  return total;
}

SymbolicSize OperatorGraph::forward_flops(NodeRange range) const {
  SymbolicSize total;
  for (int i = range.first; i < range.end; ++i) total += nodes_[static_cast<std::size_t>(i)].forward_flops();
  return total;
}

SymbolicSize OperatorGraph::matrix_flops(NodeRange range) const {
  SymbolicSize total;
  for (int i = range.first; i < range.end; ++i) total += nodes_[static_cast<std::size_t>(i)].matrix_flops;
  return total;
}

SymbolicSize OperatorGraph::backward_flops(NodeRange range) const {
  SymbolicSize total;
  for (int i = range.first; i < range.end; ++i) {
    const GraphNode& node = nodes_[static_cast<std::size_t>(i)];
    total += node.backward_matrix_flops + node.backward_vector_flops;
  }
  return total;
}

OperatorGraph operator_graph(const ModelConfig& config, const GraphOptions& options) {
  const auto check_bytes = [](int bytes, std::string_view name) {
    GANTRY_CHECK(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8,
                 "operator graph: {} is {}, expected 1, 2, 4 or 8", name, bytes);
  };
  check_bytes(options.activation_bytes, "activation_bytes");
  check_bytes(options.weight_bytes, "weight_bytes");
  check_bytes(options.loss_bytes, "loss_bytes");
  GANTRY_CHECK(!options.sequence_parallel || options.purpose == GraphPurpose::kTraining,
               "operator graph: sequence_parallel is for training; leave it off for inference");
  GANTRY_CHECK(options.loss_chunk_tokens > 0, "operator graph: loss_chunk_tokens is {}, expected at least 1",
               options.loss_chunk_tokens);
  internal::GraphBuilder builder(config, options);
  switch (config.family) {
    case Family::kLlama: internal::build_llama(builder); break;
    case Family::kGpt2: internal::build_gpt2(builder); break;
    case Family::kBert: internal::build_bert(builder); break;
  }
  return builder.finish();
}

std::string_view op_kind_name(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbedding: return "embedding";
    case OpKind::kNorm: return "norm";
    case OpKind::kLinear: return "linear";
    case OpKind::kRope: return "rope";
    case OpKind::kAttention: return "attention";
    case OpKind::kGatedActivation: return "gated_activation";
    case OpKind::kActivation: return "activation";
    case OpKind::kResidualAdd: return "residual_add";
    case OpKind::kDropout: return "dropout";
    case OpKind::kHead: return "head";
    case OpKind::kLoss: return "loss";
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::spec
