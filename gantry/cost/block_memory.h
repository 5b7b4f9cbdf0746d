#pragma once
// Memory of one section of the operator graph by liveness (Mist, EuroSys '25, section 5.2.1): a walk forward, then
// backward, over the set of live storages; peaks are symbolic maxima.
#include "gantry/spec/operator_graph.h"
#include "gantry/symbolic/expr.h"

namespace gantry::cost {

/// Bytes on one rank, over the symbols b (sequences), s (tokens of each) and tp.
struct SectionMemory {
  symbolic::Expr saved_checkpointed;  ///< inputs of the section: all that a checkpointed one keeps
  symbolic::Expr saved;               ///< what its nodes keep for backward, inputs included
  /// Most that is live while it runs forward, its kept input and output included.
  symbolic::Expr peak_forward;
  /// Most that is live while it runs backward after a forward that kept everything (or after recomputation): saved
  /// tensors not yet freed, gradients of activations, workspaces. Gradients of weights are not included.
  symbolic::Expr peak_backward;
  symbolic::Expr output;
  symbolic::Expr weight_elements;
  /// Largest score matrix of attention (0 for flash attention); Mist's Q term.
  symbolic::Expr attention_scores;
};

symbolic::Expr to_expr(const spec::SymbolicSize& size);  ///< B, S, tp become b, s, tp; C becomes s
SectionMemory analyse(const spec::OperatorGraph& graph, spec::NodeRange range);

}  // namespace gantry::cost
