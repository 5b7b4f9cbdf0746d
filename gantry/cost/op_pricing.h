#pragma once
// Seconds of the nodes of an operator graph: looked up among a profile's measured operators, else from a roofline
// fitted to the measured ones of the same device, else from the data sheet; each says which.
#include <memory>
#include <string>
#include <vector>

#include "gantry/cost/device_rooflines.h"
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
  /// Restricts the first rule to operators whose forward takes below 50 us: a longer one did something, and its long
  /// backward (flash attention, softmax, the embedding's table) is real. Mist's code clamps them as well.
  bool clamp_idle_only = false;
};

/// One operator of one node, or "memory_mode": what the node's backward does beyond that of stock layers.
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

/// Keeps a reference to the profile, which must outlive it. Safe to use from several threads.
class OperatorPricer {
 public:
  /// Fits the rooflines (device_rooflines.h). `dtype` is that of activations: "fp16", "bf16" or "fp32".
  OperatorPricer(const Profile& profile, std::string dtype, const OperatorRules& rules);
  ~OperatorPricer();
  OperatorPricer(OperatorPricer&&) noexcept;

  /// Prices the nodes of `range` at `sizes`, one line an operator that is counted. An entry of exactly these sizes is
  /// taken as measured (fitted, where it is in the other 16-bit type), all else comes from a roofline. `stock` is the
  /// same model's graph with stock memory modes, where `graph` has others: its nodes are priced, and what a mode's
  /// backward adds comes on top. Collectives are not included. InputError names an operator that the profile neither
  /// has nor lets estimate, and how to measure it.
  SectionSeconds price(const spec::OperatorGraph& graph, spec::NodeRange range, const spec::Bindings& sizes,
                       const spec::OperatorGraph* stock = nullptr) const;

  /// Adding `elements` gradient elements to those of earlier micro-batches: in forward_s, as the profile has it. No
  /// rules apply.
  OperatorLine accumulate(double elements) const;

  /// Seconds of AdamW over `elements` parameters on the device. Bound by bytes, 28 a parameter: master weight and two
  /// moments in fp32 read and written, the gradient read, the weight written (with fp32 weights, which are the master:
  /// 28 as well).
  double optimizer_s(double elements) const;

  /// The fits of all measured operators with their residuals.
  std::vector<RooflineFit> fits() const { return rooflines_->fits(); }

 private:
  OperatorRules rules_;
  std::unique_ptr<DeviceRooflines> rooflines_;
};

}  // namespace gantry::cost
