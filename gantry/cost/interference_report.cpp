#include "gantry/cost/interference_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/random.h"

namespace gantry::cost {
namespace {

using Samples = std::vector<OverlapSample>;
/// By {nodes, devices a node}.
using Shapes = std::map<std::pair<int, int>, Samples>;

Shapes group_by_shape(std::span<const OverlapSample> samples) {
  Shapes shapes;
  for (const auto& sample : samples) shapes[{sample.nodes, sample.per_node}].push_back(sample);
  return shapes;
}

void shuffle(Samples& samples, base::CounterRandom& random) {
  for (std::size_t i = samples.size(); i > 1; --i) std::swap(samples[i - 1], samples[random.below(i)]);
}

template <class Predict>
double mean_error(std::span<const OverlapSample> samples, Predict predict) {
  double sum = 0;
  for (const auto& sample : samples) sum += std::abs(predict(sample) - sample.together_s) / sample.together_s;
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

}  // namespace

std::vector<ShapeFactors> fit_shape_factors(std::span<const OverlapSample> samples, const Factors& start,
                                            const FitOptions& options) {
  ShapeFactors joint;
  joint.factors = fit_factors(samples, start, options);
  joint.residual = mean_relative_error(samples, joint.factors);
  std::vector<ShapeFactors> result = {joint};
  for (const auto& [shape, own] : group_by_shape(samples)) {
    if (own.size() < kLeastShapeSamples) continue;
    ShapeFactors set{
        .per_node = shape.second, .nodes = shape.first, .factors = fit_factors(own, joint.factors, options)};
    set.residual = mean_relative_error(own, set.factors);
    result.push_back(set);
  }
  return result;
}

const Factors& shape_factors(std::span<const ShapeFactors> sets, int per_node, int nodes) {
  const auto find = [&](int a, int e) {
    return std::ranges::find_if(sets, [=](const auto& set) { return set.per_node == a && set.nodes == e; });
  };
  auto found = find(per_node, nodes);
  if (found == sets.end()) found = find(0, 0);
  GANTRY_CHECK(found != sets.end(), "No interference factors for groups of {} nodes x {} devices", nodes, per_node);
  return found->factors;
}

InterferenceReport interference_report(std::span<const OverlapSample> samples, const Factors& shipped,
                                       const InterferenceReportOptions& options) {
  base::CounterRandom random(options.split_seed);
  Samples fitted, held_out;
  Shapes held_out_shapes;
  for (auto& [shape, own] : group_by_shape(samples)) {
    shuffle(own, random);
    const auto middle = own.begin() + static_cast<std::ptrdiff_t>((own.size() + 1) / 2);
    fitted.insert(fitted.end(), own.begin(), middle);
    held_out.insert(held_out.end(), middle, own.end());
    if (middle != own.end()) held_out_shapes[shape] = Samples(middle, own.end());
  }
  GANTRY_CHECK(!held_out.empty(), "An interference report needs two samples of one group shape, found {} sample(s)",
               samples.size());
  const auto sets = fit_shape_factors(fitted, shipped, options.fit);
  const Factors& joint = sets.front().factors;
  const auto sum = [](const OverlapSample& s) { return std::accumulate(s.alone_s.begin(), s.alone_s.end(), 0.0); };
  const auto max = [](const OverlapSample& s) { return std::ranges::max(s.alone_s); };
  InterferenceReport report;
  report.fitted_samples = static_cast<int>(fitted.size());
  report.held_out_samples = static_cast<int>(held_out.size());
  report.sum = mean_error(held_out, sum);
  report.max = mean_error(held_out, max);
  report.shipped = mean_relative_error(held_out, shipped);
  report.stagewise = mean_relative_error(held_out, fit_factors_stagewise(fitted, options.fit));
  report.joint = mean_relative_error(held_out, joint);
  for (const auto& [shape, own] : held_out_shapes) {
    const double error = mean_relative_error(own, shape_factors(sets, shape.second, shape.first));
    report.per_shape += error * static_cast<double>(own.size()) / static_cast<double>(held_out.size());
    report.shapes.push_back({.per_node = shape.second,
                             .nodes = shape.first,
                             .samples = static_cast<int>(own.size()),
                             .shipped = mean_relative_error(own, shipped),
                             .joint = mean_relative_error(own, joint),
                             .per_shape = error});
  }
  return report;
}

}  // namespace gantry::cost
