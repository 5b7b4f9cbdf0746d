#include "gantry/cost/roofline.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gantry::cost {
namespace {

// Tried values of each bound; more samples are thinned to this many quantiles, as the search takes their cube.
constexpr std::size_t kMostCandidates = 24;

// Under a maximum each sample is explained by one bound alone, so some optimum has every bound at the value that one of
// the samples implies.
std::vector<double> candidates(std::vector<double> values, double limit) {
  std::vector<double> chosen{0};
  for (double& value : values) {
    if (limit > 0) value = std::min(value, limit);
  }
  std::ranges::sort(values);
  values.erase(std::ranges::unique(values).begin(), values.end());
  const std::size_t count = std::min(values.size(), kMostCandidates);
  for (std::size_t i = 0; i < count; ++i) {
    chosen.push_back(values[count == 1 ? 0 : i * (values.size() - 1) / (count - 1)]);
  }
  return chosen;
}

/// Sum of weighted relative errors; anything at or above `limit` once it exceeds that.
double weighted_error(const Roofline& roofline, std::span<const RooflineSample> samples,
                      const std::vector<double>& weights, double limit) {
  double sum = 0;
  for (std::size_t i = 0; i < samples.size() && sum < limit; ++i) {
    sum += weights[i] * std::abs(roofline.seconds(samples[i].work) - samples[i].seconds);
  }
  return sum;
}

bool launch_is_supported(const Roofline& roofline, std::span<const RooflineSample> samples) {
  if (roofline.launch_s == 0) return true;
  return std::ranges::count_if(samples, [&](const RooflineSample& sample) {
           return roofline.seconds(sample.work) <= roofline.launch_s;
         }) >= 2;
}

}  // namespace

double Roofline::seconds(const Work& work) const {
  double seconds = launch_s;
  if (flops_per_s > 0) seconds = std::max(seconds, work.flops / flops_per_s);
  if (bytes_per_s > 0) seconds = std::max(seconds, work.bytes / bytes_per_s);
  return seconds;
}

double mean_relative_error(const Roofline& roofline, std::span<const RooflineSample> samples) {
  if (samples.empty()) return 0;
  double sum = 0;
  for (const RooflineSample& sample : samples) {
    sum += std::abs(roofline.seconds(sample.work) - sample.seconds) / sample.seconds;
  }
  return sum / static_cast<double>(samples.size());
}

Roofline fit_roofline(std::span<const RooflineSample> samples, const RooflineLimits& limits) {
  std::vector<double> launches;
  std::vector<double> rates;
  std::vector<double> bandwidths;
  std::vector<double> weights;
  for (const RooflineSample& sample : samples) {
    launches.push_back(sample.seconds);
    weights.push_back(1 / std::sqrt(sample.seconds));
    if (sample.work.flops > 0) rates.push_back(sample.work.flops / sample.seconds);
    if (sample.work.bytes > 0) bandwidths.push_back(sample.work.bytes / sample.seconds);
  }
  launches = candidates(std::move(launches), 0);
  rates = candidates(std::move(rates), limits.flops_per_s);
  bandwidths = candidates(std::move(bandwidths), limits.bytes_per_s);
  Roofline best;
  double best_error = std::numeric_limits<double>::infinity();
  // A tie goes to the fewer bounds, and to the rate: flops grow with the sizes at least as fast as bytes.
  for (const double launch : launches) {
    for (const double bandwidth : bandwidths) {
      for (const double rate : rates) {
        const Roofline tried{launch, rate, bandwidth};
        const double error = weighted_error(tried, samples, weights, best_error);
        if (error < best_error * (1 - 1e-9) && launch_is_supported(tried, samples)) {
          best = tried;
          best_error = error;
        }
      }
    }
  }
  return best;
}

}  // namespace gantry::cost
