#pragma once
// Seconds of the nodes of an operator graph: looked up among a profile's measured operators, else from a roofline
// fitted to the measured ones of the same device, else from the data sheet; each says which.
#include <memory>
#include <string>
#include <vector>

#include "gantry/cost/profile.h"
#include "gantry/spec/operator_graph.h"

namespace gantry::cost {

/// Mist's cleaning rules for measured operators (its code; ../docs/plan.md).
struct OperatorRules {
  /// A backward above 2.3 forwards is a measuring artefact of an operator that does nothing: counted as 2 forwards.
  bool clamp_backward = true;
  /// Operators with a forward below 50 us or a backward below 100 us are not counted.
  bool drop_small = false;
  /// No final norm and no position embedding, as in Mist's operator set.
  bool skip_edge_norms = false;
};

struct OperatorLine {
  std::string node;  ///< "layers.0.mlp.up"
  std::string op;    ///< name in the profile
  double forward_s = 0;
  double backward_s = 0;
  Provenance provenance = Provenance::kMeasured;
};

struct SectionSeconds {
  double forward_s = 0;
  double backward_s = 0;
  std::vector<OperatorLine> lines;
};

class OperatorPricer {
 public:
  /// Fits the rooflines: per operator seconds = launch + max(flops / rate, bytes / bandwidth). `dtype` is that of
  /// activations.
  OperatorPricer(const Profile& profile, std::string dtype, const OperatorRules& rules);
  ~OperatorPricer();
  OperatorPricer(OperatorPricer&&) noexcept;

  /// Prices nodes [first, end) at `sizes`. `stock` is the same model's graph with stock memory modes where `graph` uses
  /// others: what a mode costs over it comes from the roofline of the two nodes' flops and bytes. Collectives are not
  /// included. InputError names an operator that the profile neither has nor lets estimate, and how to measure it.
  SectionSeconds price(const spec::OperatorGraph& graph, spec::NodeRange range, const spec::Bindings& sizes) const;

  /// Adding `elements` gradient elements into a flat buffer.
  OperatorLine accumulate(double elements) const;

  /// Seconds of AdamW over `elements` parameters on the device (bound by bytes: 28 a parameter with 16-bit weights).
  double optimizer_s(double elements) const;

 private:
  struct Rooflines;
  const Profile& profile_;
  std::string dtype_;
  OperatorRules rules_;
  std::unique_ptr<Rooflines> rooflines_;
};

}  // namespace gantry::cost
