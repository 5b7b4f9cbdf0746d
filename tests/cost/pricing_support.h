#pragma once
// Graphs and profiles that the pricing tests share.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "gantry/cost/op_pricing.h"
#include "gantry/spec/named_models.h"

namespace gantry::cost::testing {

/// One layer of a named model in 16-bit training, with these memory modes.
inline spec::OperatorGraph graph_of(const char* name, spec::GraphOptions options = {}) {
  spec::ModelConfig config = spec::named_model(name);
  config.num_layers = 1;
  options.activation_bytes = options.weight_bytes = 2;
  return spec::operator_graph(config, options);
}

inline spec::Bindings sizes(double batch, double sequence = 2048, double tensor_parallel = 1) {
  return {batch, sequence, sequence, tensor_parallel};
}

inline OperatorTime measured(std::string op, std::vector<std::int64_t> op_sizes, double forward_s, double backward_s,
                             std::string dtype = "fp16") {
  return {std::move(op), std::move(dtype), std::move(op_sizes), forward_s, backward_s};
}

/// The line of a node that ran `op`.
inline OperatorLine line_of(const SectionSeconds& section, std::string_view node, std::string_view op) {
  for (const OperatorLine& line : section.lines) {
    if (line.node == node && line.op == op) return line;
  }
  ADD_FAILURE() << "no " << op << " of " << node;
  return {};
}

inline bool has_line(const SectionSeconds& section, std::string_view node, std::string_view op) {
  for (const OperatorLine& line : section.lines) {
    if (line.node == node && line.op == op) return true;
  }
  return false;
}

}  // namespace gantry::cost::testing
