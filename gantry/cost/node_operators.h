#pragma once
// Which operators of a profile a node of the operator graph runs, and at which sizes.
#include <cstdint>
#include <string>
#include <vector>

#include "gantry/spec/operator_graph.h"

namespace gantry::cost {

struct OperatorUse {
  std::string op;  ///< name in a profile
  std::vector<std::int64_t> sizes;
  double flops_share = 1;  ///< flops against those of operator_work(): 2 for attention that masks nothing
  bool again = false;      ///< backward runs the forward once more
  /// A by-product of one implementation (views, a mean of losses): counted only where the profile measured it.
  bool by_product = false;
};

/// Of a training graph; sizes are those of one rank. `skip_edge_norms`: no norm outside the layers, no position
/// embedding. InputError where tensor parallelism divides a size unevenly.
std::vector<OperatorUse> operators_of(const spec::OperatorGraph& graph, const spec::GraphNode& node,
                                      const spec::Bindings& sizes, bool skip_edge_norms);

}  // namespace gantry::cost
