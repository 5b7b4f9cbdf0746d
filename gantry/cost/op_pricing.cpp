#include "gantry/cost/op_pricing.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "gantry/base/check.h"
#include "gantry/cost/node_operators.h"

namespace gantry::cost {
namespace {

// Mist's released code, operator database: when a backward is not believed, and which operators are not counted.
constexpr double kMostBackwardShare = 2.3;
constexpr double kClampedBackwardShare = 2;
constexpr double kSmallForwardS = 50e-6;
constexpr double kSmallBackwardS = 100e-6;

constexpr double kOptimizerTraffic = 28;

OperatorLine estimate(const DeviceRooflines& rooflines, const OperatorUse& use) {
  const OperatorRoofline roofline = rooflines.at(use.op);
  OperatorWork work = operator_work(use.op, use.sizes, rooflines.element_bytes());
  work.forward.flops *= use.flops_share;
  work.backward.flops *= use.flops_share;
  return {.node = {},
          .op = use.op,
          .forward_s = roofline.forward.seconds(work.forward),
          .backward_s = roofline.backward.seconds(work.backward),
          .provenance = roofline.provenance};
}

OperatorLine look_up(const DeviceRooflines& rooflines, const OperatorUse& use) {
  // Measured attention is causal.
  const bool comparable = std::abs(use.flops_share - 1) < 0.01;
  const auto hit = comparable ? rooflines.find(use.op, use.sizes) : std::nullopt;
  if (!hit) return estimate(rooflines, use);
  return {.node = {},
          .op = use.op,
          .forward_s = hit->time->forward_s,
          .backward_s = hit->time->backward_s,
          .provenance = hit->other_dtype ? Provenance::kFitted : Provenance::kMeasured};
}

/// False: not counted.
bool apply(const OperatorRules& rules, OperatorLine& line) {
  const bool believed = rules.clamp_idle_only && line.forward_s >= kSmallForwardS;
  if (rules.clamp_backward && !believed && line.backward_s > kMostBackwardShare * line.forward_s) {
    line.backward_s = kClampedBackwardShare * line.forward_s;
  }
  return !rules.drop_small || (line.forward_s >= kSmallForwardS && line.backward_s >= kSmallBackwardS);
}

const spec::GraphNode* find_node(const spec::OperatorGraph& graph, std::size_t likely, const std::string& name) {
  const auto& nodes = graph.nodes();
  if (likely < nodes.size() && nodes[likely].name == name) return &nodes[likely];
  const auto found = std::ranges::find(nodes, name, &spec::GraphNode::name);
  return found == nodes.end() ? nullptr : &*found;
}

bool keeps_dropped(const spec::OperatorGraph& graph, const spec::GraphNode& node) {
  return std::ranges::any_of(
      node.outputs, [&](int id) { return graph.tensors()[static_cast<std::size_t>(id)].name.ends_with(".dropped"); });
}

/// A node of a graph that has one.
struct Node {
  const spec::OperatorGraph& graph;
  const spec::GraphNode& node;
};

// What is computed again costs what it did forward; further bytes run at the bandwidth of a long pass.
double mode_seconds(const DeviceRooflines& rooflines, const Node& mode, const Node& stock, double forward_s,
                    const spec::Bindings& sizes) {
  const auto backward_flops = [](const spec::GraphNode& node) {
    return node.backward_matrix_flops + node.backward_vector_flops;
  };
  const double again = (backward_flops(mode.node) - backward_flops(stock.node)).evaluate(sizes);
  const double forward = mode.node.forward_flops().evaluate(sizes);
  const double moved = (mode.node.backward_bytes - stock.node.backward_bytes).evaluate(sizes);
  double seconds = 0;
  if (again > 0 && forward > 0) seconds += forward_s * again / forward;
  if (moved > 0) seconds += moved / rooflines.stream_bytes_per_s();
  // Probabilities that were not kept after dropout are dropped again.
  if (keeps_dropped(stock.graph, stock.node) && !keeps_dropped(mode.graph, mode.node)) {
    for (const OperatorUse& use : operators_of(stock.graph, stock.node, sizes, false)) {
      if (use.op == "attention_dropout") seconds += look_up(rooflines, use).forward_s;
    }
  }
  return seconds;
}

}  // namespace

OperatorPricer::OperatorPricer(const Profile& profile, std::string dtype, const OperatorRules& rules)
    : rules_(rules), rooflines_(std::make_unique<DeviceRooflines>(profile, dtype)) {}

OperatorPricer::~OperatorPricer() = default;
OperatorPricer::OperatorPricer(OperatorPricer&&) noexcept = default;

SectionSeconds OperatorPricer::price(const spec::OperatorGraph& graph, spec::NodeRange range,
                                     const spec::Bindings& sizes, const spec::OperatorGraph* stock) const {
  SectionSeconds section;
  const auto add = [&](OperatorLine line) {
    section.forward_s += line.forward_s;
    section.backward_s += line.backward_s;
    section.lines.push_back(std::move(line));
  };
  for (int i = range.first; i < range.end; ++i) {
    const auto index = static_cast<std::size_t>(i);
    const Node node{graph, graph.nodes()[index]};
    const spec::GraphNode* found = stock == nullptr ? nullptr : find_node(*stock, index, node.node.name);
    const Node base = found == nullptr ? node : Node{*stock, *found};
    double forward_s = 0;
    for (const OperatorUse& use : operators_of(base.graph, base.node, sizes, rules_.skip_edge_norms)) {
      if (use.by_product && !rooflines_->measured(use.op)) continue;
      OperatorLine line = look_up(*rooflines_, use);
      line.node = node.node.name;
      if (!apply(rules_, line)) continue;
      if (use.again) line.backward_s += line.forward_s;
      forward_s += line.forward_s;
      add(std::move(line));
    }
    const double extra = found == nullptr ? 0 : mode_seconds(*rooflines_, node, base, forward_s, sizes);
    if (extra > 0) add({node.node.name, "memory_mode", 0, extra, rooflines_->stream_provenance()});
  }
  return section;
}

OperatorLine OperatorPricer::accumulate(double elements) const {
  GANTRY_CHECK(elements >= 0 && elements < 0x1p53, "{} gradient elements: expected 0 to 2^53", elements);
  const OperatorUse use{.op = "accumulate", .sizes = {std::llround(elements)}};
  OperatorLine line = look_up(*rooflines_, use);
  line.node = "gradients";
  line.backward_s = 0;
  return line;
}

double OperatorPricer::optimizer_s(double elements) const {
  return elements * kOptimizerTraffic / rooflines_->stream_bytes_per_s();
}

}  // namespace gantry::cost
