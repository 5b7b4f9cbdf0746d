#include "gantry/models/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "gantry/base/check.h"

namespace gantry::models {
namespace {

struct Candidate {
  float logit;
  std::int32_t id;
};

bool likelier(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

void penalize(std::vector<float>& logits, std::span<const std::int32_t> seen, double penalty) {
  const std::unordered_set<std::int32_t> distinct(seen.begin(), seen.end());
  for (const std::int32_t id : distinct) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
  }
}

std::int32_t greedy(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Candidates in falling order, cut by top-k; a heap-based partial sort where K is small.
std::vector<Candidate> ranked(std::span<const float> logits, std::int64_t top_k) {
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) all[i] = {logits[i], static_cast<std::int32_t>(i)};
  const std::size_t keep = top_k > 0 ? std::min<std::size_t>(static_cast<std::size_t>(top_k), all.size()) : all.size();
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(keep), all.end(), likelier);
  all.resize(keep);
  return all;
}

// How many of the leading candidates stay.
std::size_t cut(const std::vector<double>& weights, double total, double top_p, double min_p) {
  std::size_t keep = weights.size();
  if (top_p < 1.0) {
    double sum = 0;
    for (std::size_t i = 0; i < keep; ++i) {
      sum += weights[i];
      if (sum >= top_p * total) keep = i + 1;
    }
  }
  if (min_p > 0.0) {
    while (keep > 1 && weights[keep - 1] < min_p * weights[0]) --keep;
  }
  return keep;
}

}  // namespace

void validate(const SamplingOptions& o) {
  GANTRY_CHECK(o.temperature >= 0 && std::isfinite(o.temperature), "temperature {} must be 0 or more", o.temperature);
  GANTRY_CHECK(o.top_k >= 0, "top_k {} must be 0 (off) or more", o.top_k);
  GANTRY_CHECK(o.top_p > 0 && o.top_p <= 1, "top_p {} must be above 0 and at most 1", o.top_p);
  GANTRY_CHECK(o.min_p >= 0 && o.min_p < 1, "min_p {} must be at least 0 and below 1", o.min_p);
  GANTRY_CHECK(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty),
               "repetition_penalty {} must be positive and finite", o.repetition_penalty);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) { validate(options); }

std::int32_t Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> seen) {
  GANTRY_CHECK(std::none_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }),
               "the model produced NaN logits; its weights are damaged or a low-precision type overflowed");
  std::vector<float> penalized;
  if (options_.repetition_penalty != 1.0) {
    penalized.assign(logits.begin(), logits.end());
    penalize(penalized, seen, options_.repetition_penalty);
    logits = penalized;
  }
  if (options_.temperature == 0) return greedy(logits);
  const auto candidates = ranked(logits, options_.top_k);
  if (!std::isfinite(candidates[0].logit)) return candidates[0].id;
  // Differences first: a tiny temperature then gives 0 or minus infinity, never NaN.
  std::vector<double> weights(candidates.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double below = static_cast<double>(candidates[i].logit) - static_cast<double>(candidates[0].logit);
    weights[i] = std::exp(below / options_.temperature);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const std::size_t keep = cut(weights, total, options_.top_p, options_.min_p);
  const double kept = std::accumulate(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(keep), 0.0);
  double target = random_.uniform() * kept;
  for (std::size_t i = 0; i < keep; ++i) {
    target -= weights[i];
    if (target < 0) return candidates[i].id;
  }
  return candidates[keep - 1].id;
}

}  // namespace gantry::models
