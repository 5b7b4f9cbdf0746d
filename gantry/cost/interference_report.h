#pragma once
// Fits of the interference factors for each group shape, and the proof of a fit on measurements that it has not seen.
#include <cstdint>
#include <span>
#include <vector>

#include "gantry/cost/interference.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {

/// Fits of a profile: first the joint set of all samples (shape 0, 0), fitted from `start`; then, in the order of nodes
/// and devices, one set for each group shape with at least `kLeastShapeSamples` samples, fitted from the joint one.
/// Each with the mean relative error on the samples it was fitted to.
inline constexpr int kLeastShapeSamples = 20;
std::vector<ShapeFactors> fit_shape_factors(std::span<const OverlapSample> samples, const Factors& start,
                                            const FitOptions& options = {});
/// The set of a group shape: its own, else that of shape (0, 0); InputError when there is neither.
const Factors& shape_factors(std::span<const ShapeFactors> sets, int per_node, int nodes);

struct InterferenceReportOptions {
  FitOptions fit;
  std::uint64_t split_seed = 1;
};

/// Mean relative errors on the half of the samples that nothing was fitted to.
struct InterferenceReport {
  struct Shape {
    int per_node = 0, nodes = 0;
    int samples = 0;  ///< held out
    double shipped = 0, joint = 0, per_shape = 0;
  };
  int fitted_samples = 0, held_out_samples = 0;
  double sum = 0;        ///< channels one after the other
  double max = 0;        ///< channels that share nothing
  double shipped = 0;    ///< the factors passed in (they may have seen the held-out half)
  double stagewise = 0;  ///< the published procedure, refitted
  double joint = 0;      ///< one set of factors for all shapes
  double per_shape = 0;  ///< one for each group shape
  std::vector<Shape> shapes;
};

/// Splits the samples of every group shape at random in halves (the larger one is fitted), fits, and measures on the
/// rest. Joint fits start from `shipped`. InputError for fewer than two samples.
InterferenceReport interference_report(std::span<const OverlapSample> samples, const Factors& shipped,
                                       const InterferenceReportOptions& options = {});

}  // namespace gantry::cost
