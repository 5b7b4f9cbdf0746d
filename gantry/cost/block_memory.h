#pragma once
// Memory of one section of the operator graph by liveness (Mist, EuroSys '25, section 5.2.1): a walk forward, then
// backward, over the set of live storages; peaks are symbolic maxima.
//
// Rules
// - Forward: a tensor lives from its node, inputs of the section from the start, to its last reader; outputs and what
//   the section keeps for backward live on. A node's workspace comes on top while it runs.
// - Backward: kept tensors are freed after the last node that kept them (the first, seen forward); inputs that a node
//   keeps live to the end, for they belong to the caller. The output is dead unless a node kept it: it is the next
//   section's input and counted there.
// - A gradient lives from the first reader of its tensor that runs backward to the tensor's producer. A sum of
//   gradients is a new storage; the gradients of a residual sum's inputs are the storage of its result's.
// - Gradients of the section's inputs live to the end. Gradients of weights are not included.
#include "gantry/spec/operator_graph.h"
#include "gantry/symbolic/expr.h"

namespace gantry::cost {

/// Bytes on one rank, over the symbols b (sequences), s (tokens of each) and tp.
struct SectionMemory {
  symbolic::Expr saved_checkpointed;  ///< inputs of the section: all that a checkpointed one keeps
  symbolic::Expr saved;  ///< what its nodes keep for backward, inputs among it or not (in-place norms keep none)
  /// Most that is live while it runs forward, its kept input and output included.
  symbolic::Expr peak_forward;
  /// Most that is live while it runs backward after a forward that kept everything: saved tensors not yet freed,
  /// gradients of activations, workspaces.
  symbolic::Expr peak_backward;
  symbolic::Expr peak_recomputed;  ///< the same after recomputation, for which its inputs were kept
  symbolic::Expr output;           ///< what later sections read, or results that nothing reads
  symbolic::Expr weight_elements;
  /// Largest score matrix of attention (0 for flash attention); Mist's Q term.
  symbolic::Expr attention_scores;
};

symbolic::Expr to_expr(const spec::SymbolicSize& size);  ///< B, S, tp become b, s, tp; C becomes s
/// InputError for a range that is empty or not within the graph.
SectionMemory analyse(const spec::OperatorGraph& graph, spec::NodeRange range);

}  // namespace gantry::cost
