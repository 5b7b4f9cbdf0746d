#include "gantry/train/micro_batch.h"

#include <fmt/format.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/progress.h"
#include "gantry/base/statistics.h"

namespace gantry::train {
namespace {

constexpr int kTimedRounds = 3;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

class MicroBatchSearch {
 public:
  MicroBatchSearch(std::int64_t sequences, const MicroBatchMeasure& measure)
      : sequences_(sequences), measure_(measure), sizes_(micro_batch_sizes(sequences)), trials_(sizes_.size()) {}

  MicroBatchPlan run() {
    if (fits(0)) {
      find_largest();
      std::vector<std::size_t> all;
      for (std::size_t i = 0; i < trials_.size(); ++i) {
        if (trials_[i] && fits(i)) all.push_back(i);
      }
      time(all);
      refine();
    }
    return plan();
  }

 private:
  // Measured at the first question.
  bool fits(std::size_t i) {
    if (!trials_[i]) {
      trials_[i] = MicroBatchTrial{.micro_batch = sizes_[i],
                                   .accumulation = ceil_div(sequences_, sizes_[i]),
                                   .memory = measure_.fit(sizes_[i]),
                                   .seconds = {},
                                   .samples_per_s = 0};
    }
    return trials_[i]->memory.fits;
  }

  void find_largest() {
    std::size_t low = 0, high = sizes_.size();  // fits; the first known not to
    while (high == sizes_.size() && low + 1 < high) {
      // The largest size up to the double, at least the next.
      std::size_t next = low + 1;
      while (next + 1 < sizes_.size() && sizes_[next + 1] <= 2 * sizes_[low]) ++next;
      (fits(next) ? low : high) = next;
    }
    while (high - low > 1) {
      const std::size_t middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
  }

  void time(const std::vector<std::size_t>& indices) {
    for (int round = 0; round < kTimedRounds; ++round) {
      for (const std::size_t i : indices) {
        MicroBatchTrial& trial = *trials_[i];
        if (!trial.memory.fits) continue;
        if (const auto seconds = measure_.step_seconds(trial)) {
          trial.seconds.push_back(*seconds);
        } else {
          trial.memory.fits = false;
        }
      }
    }
    for (const std::size_t i : indices) {
      MicroBatchTrial& trial = *trials_[i];
      trial.samples_per_s = trial.memory.fits ? static_cast<double>(sequences_) / base::median(trial.seconds) : 0;
    }
  }

  std::optional<std::size_t> fastest() const {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < trials_.size(); ++i) {
      if (!trials_[i] || !trials_[i]->memory.fits) continue;
      if (!best || trials_[i]->samples_per_s > trials_[*best]->samples_per_s) best = i;
    }
    return best;
  }

  // Sizes half way between the fastest and the next ones that were tried.
  std::vector<std::size_t> untried_beside(std::size_t best) const {
    std::vector<std::size_t> result;
    std::size_t below = best, above = best;
    while (below > 0 && !trials_[--below]) {
    }
    while (above + 1 < trials_.size() && !trials_[++above]) {
    }
    if (best - below > 1) result.push_back((below + best) / 2);
    if (above - best > 1) result.push_back((best + above) / 2);
    return result;
  }

  void refine() {
    for (auto best = fastest(); best; best = fastest()) {
      const auto untried = untried_beside(*best);
      if (untried.empty()) return;
      std::vector<std::size_t> timed{*best};
      for (const std::size_t i : untried) {
        if (fits(i)) timed.push_back(i);
      }
      if (timed.size() > 1) time(timed);
    }
  }

  MicroBatchPlan plan() {
    MicroBatchPlan result;
    const auto best = fastest();
    for (std::size_t i = 0; i < trials_.size(); ++i) {
      if (!trials_[i]) continue;
      if (best == i) result.chosen = result.trials.size();
      result.trials.push_back(std::move(*trials_[i]));
    }
    return result;
  }

  std::int64_t sequences_;
  const MicroBatchMeasure& measure_;
  std::vector<std::int64_t> sizes_;
  std::vector<std::optional<MicroBatchTrial>> trials_;  // by size
};

std::string modes_of(const MemoryPlan& memory) {
  std::string text;
  for (std::size_t i = 0; i < memory.hull.size(); ++i) {
    if (memory.used[i] == 0) continue;
    text += fmt::format("{}{} x {}", text.empty() ? "" : "; ", memory.used[i], spec::describe(memory.hull[i].memory));
  }
  return text;
}

}  // namespace

std::vector<std::int64_t> split_step(std::int64_t sequences, std::int64_t micro_batch) {
  GANTRY_CHECK(sequences >= 1 && micro_batch >= 1, "a step of {} sequences can't be split into micro-batches of {}",
               sequences, micro_batch);
  const std::int64_t count = ceil_div(sequences, micro_batch);
  std::vector<std::int64_t> result(static_cast<std::size_t>(count), sequences / count);
  for (std::int64_t i = 0; i < sequences % count; ++i) ++result[static_cast<std::size_t>(i)];
  return result;
}

std::vector<std::int64_t> micro_batch_sizes(std::int64_t sequences) {
  std::vector<std::int64_t> result;
  for (std::int64_t count = sequences; count >= 1; --count) {
    const std::int64_t size = ceil_div(sequences, count);
    if (result.empty() || result.back() != size) result.push_back(size);
  }
  return result;
}

MicroBatchPlan search_micro_batch(std::int64_t sequences, const MicroBatchMeasure& measure) {
  return MicroBatchSearch(sequences, measure).run();
}

std::string describe(const MicroBatchPlan& plan) {
  std::string text = fmt::format("{:>11} {:>12} {:>9} {:>10} {:>7}  {}\n", "micro-batch", "accumulation", "peak MiB",
                                 "samples/s", "", "layers x memory mode");
  for (std::size_t i = 0; i < plan.trials.size(); ++i) {
    const MicroBatchTrial& trial = plan.trials[i];
    const MemoryPlan& memory = trial.memory;
    const double mib = static_cast<double>(memory.peak_bytes.value_or(memory.least_bytes)) / (1 << 20);
    text += fmt::format("{:>11} {:>12} {:>9} {:>10} {:>7}  {}\n", trial.micro_batch, trial.accumulation,
                        fmt::format("{}{:.0f}", memory.peak_bytes ? "" : "> ", mib),
                        memory.fits ? fmt::format("{:.3f}", trial.samples_per_s) : "no room",
                        plan.chosen == i ? "chosen" : "", modes_of(memory));
  }
  return text;
}

base::OrderedJson micro_batches_to_json(const MicroBatchPlan& plan) {
  base::OrderedJson result = base::OrderedJson::array();
  for (std::size_t i = 0; i < plan.trials.size(); ++i) {
    const MicroBatchTrial& trial = plan.trials[i];
    base::OrderedJson entry;
    entry["micro_batch"] = trial.micro_batch;
    entry["accumulation"] = trial.accumulation;
    entry["fits"] = trial.memory.fits;
    entry["peak_bytes"] = nullptr;
    if (trial.memory.peak_bytes) entry["peak_bytes"] = *trial.memory.peak_bytes;
    entry["samples_per_s"] = nullptr;
    if (trial.samples_per_s > 0) entry["samples_per_s"] = trial.samples_per_s;
    entry["modes"] = used_modes_to_json(trial.memory);
    entry["chosen"] = plan.chosen == i;
    result.push_back(std::move(entry));
  }
  return result;
}

}  // namespace gantry::train
