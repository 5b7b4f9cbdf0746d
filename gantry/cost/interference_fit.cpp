#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/random.h"
#include "gantry/cost/interference.h"

namespace gantry::cost {
namespace {

constexpr double kMostFactor = 50.0;
constexpr double kFirstStep = 0.3;  ///< standard deviation of a move's logarithm
constexpr double kLeastStep = 0.05;
constexpr double kStepDecay = 0.8;
constexpr int kDecays = 4;  ///< over the whole search
/// A factor of 1 must be able to leave it: moves scale (f - 1) plus this.
constexpr double kLift = 0.02;

enum class Objective { kRelativeError, kSquaredSeconds };

double loss(const OverlapSample& sample, const Factors& factors, Objective objective) {
  const double difference = overlap_s(sample.alone_s, factors) - sample.together_s;
  return objective == Objective::kRelativeError ? std::abs(difference) / sample.together_s : difference * difference;
}

unsigned busy_set(const OverlapSample& sample) {
  unsigned busy = 0;
  for (std::size_t c = 0; c < kChannels; ++c) busy |= static_cast<unsigned>(sample.alone_s[c] > 0) << c;
  return busy;
}

double gaussian(base::CounterRandom& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
  return radius * std::cos(2 * std::numbers::pi * random.uniform());
}

/// Random search over the factors of some sets. A factor is moved only if some sample can pass through its set, and a
/// move evaluates only the samples that can.
class Search {
 public:
  Search(std::span<const OverlapSample> samples, const Factors& start, std::span<const unsigned> sets,
         Objective objective)
      : samples_(samples), factors_(start), objective_(objective) {
    for (const auto& sample : samples) losses_.push_back(loss(sample, start, objective));
    trial_losses_ = losses_;
    for (const unsigned set : sets) {
      std::vector<std::uint32_t> passing;
      for (std::uint32_t i = 0; i < samples.size(); ++i) {
        if ((busy_set(samples[i]) & set) == set) passing.push_back(i);
      }
      if (passing.empty()) continue;
      for (int c = 0; c < kChannels; ++c) {
        const int index = factor_index(set, c);
        if (index >= 0) movable_.push_back({.index = static_cast<std::size_t>(index), .set = passing_.size()});
      }
      passing_.push_back(std::move(passing));
    }
  }

  Factors run(const FitOptions& options) {
    base::CounterRandom random(options.seed);
    double step = kFirstStep;
    for (int i = 0; i < options.steps && !movable_.empty(); ++i) {
      try_move(random, step);
      if ((i + 1) % std::max(1, options.steps / kDecays) == 0) step = std::max(kLeastStep, step * kStepDecay);
    }
    return factors_;
  }

  double total_loss() const { return std::accumulate(losses_.begin(), losses_.end(), 0.0); }

 private:
  struct Movable {
    std::size_t index;  ///< into Factors::f
    std::size_t set;    ///< into passing_
  };

  /// Change of the total loss over the samples of a set; remembers their losses.
  double change(const Factors& trial, const std::vector<std::uint32_t>& passing) {
    double sum = 0;
    for (const std::uint32_t i : passing) {
      trial_losses_[i] = loss(samples_[i], trial, objective_);
      sum += trial_losses_[i] - losses_[i];
    }
    return sum;
  }

  void try_move(base::CounterRandom& random, double step) {
    Factors trial = factors_;
    const bool two = random.below(2) == 1;
    const Movable first = movable_[random.below(movable_.size())];
    const Movable second = two ? movable_[random.below(movable_.size())] : first;
    const auto move = [&](std::size_t index) {
      double& f = trial.f[index];
      f = std::clamp(1 + (f - 1 + kLift) * std::exp(step * gaussian(random)), 1.0, kMostFactor);
    };
    move(first.index);
    if (two) move(second.index);
    const auto* touched = &passing_[first.set];
    if (first.set != second.set) {
      merged_.clear();
      std::ranges::set_union(passing_[first.set], passing_[second.set], std::back_inserter(merged_));
      touched = &merged_;
    }
    if (change(trial, *touched) >= 0) return;
    factors_ = trial;
    for (const std::uint32_t i : *touched) losses_[i] = trial_losses_[i];
  }

  std::span<const OverlapSample> samples_;
  Factors factors_;
  Objective objective_;
  std::vector<double> losses_, trial_losses_;
  std::vector<std::vector<std::uint32_t>> passing_;  ///< a set's samples, ascending
  std::vector<Movable> movable_;
  std::vector<std::uint32_t> merged_;
};

/// Least squares of one set's factors, the others at 1. The squared error has several minima of very different quality:
/// the best of a few starts keeps the comparison fair.
Factors fit_one_set(std::span<const OverlapSample> samples, unsigned set, const FitOptions& options) {
  constexpr int kStarts = 6;
  std::vector<OverlapSample> own;
  std::ranges::copy_if(samples, std::back_inserter(own), [=](const auto& sample) { return busy_set(sample) == set; });
  base::CounterRandom random(options.seed);
  Factors best;
  double best_loss = std::numeric_limits<double>::infinity();
  for (int start = 0; start < kStarts; ++start) {
    Factors first;
    for (int c = 0; c < kChannels; ++c) {
      const int index = factor_index(set, c);
      const double f = 2.0 * std::exp(start == 0 ? 0.0 : 0.7 * gaussian(random));
      if (index >= 0) first.f[static_cast<std::size_t>(index)] = std::max(1.0, f);
    }
    Search search(own, first, {&set, 1}, Objective::kSquaredSeconds);
    const Factors fitted =
        search.run({.steps = options.steps / 8, .seed = options.seed + static_cast<unsigned>(start)});
    if (search.total_loss() >= best_loss) continue;
    best = fitted;
    best_loss = search.total_loss();
  }
  return best;
}

void check_samples(std::span<const OverlapSample> samples, const FitOptions& options) {
  GANTRY_CHECK(options.steps >= 0, "Fit of interference: steps must not be negative, found {}", options.steps);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto& sample = samples[i];
    const bool times = std::ranges::all_of(sample.alone_s, [](double x) { return std::isfinite(x) && x >= 0; });
    GANTRY_CHECK(
        times && std::isfinite(sample.together_s) && sample.together_s > 0,
        "Fit of interference: sample {} needs stand-alone seconds >= 0 ({}, {}, {}, {}) and together more than 0 "
        "({})",
        i, sample.alone_s[0], sample.alone_s[1], sample.alone_s[2], sample.alone_s[3], sample.together_s);
  }
}

}  // namespace

Factors fit_factors(std::span<const OverlapSample> samples, const Factors& start, const FitOptions& options) {
  check_samples(samples, options);
  return Search(samples, start, kFactorSets, Objective::kRelativeError).run(options);
}

Factors fit_factors_stagewise(std::span<const OverlapSample> samples, const FitOptions& options) {
  check_samples(samples, options);
  Factors result;
  // Every set sees all other factors at 1, so the order of the stages makes no difference.
  for (const unsigned set : kFactorSets) {
    const Factors fitted = fit_one_set(samples, set, options);
    for (int c = 0; c < kChannels; ++c) {
      const int index = factor_index(set, c);
      if (index >= 0) result.f[static_cast<std::size_t>(index)] = fitted.f[static_cast<std::size_t>(index)];
    }
  }
  return result;
}

}  // namespace gantry::cost
