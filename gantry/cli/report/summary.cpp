#include "gantry/cli/report/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gantry/cli/report/series.h"

namespace gantry::cli::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double mean(const double* begin, std::size_t count) {
  return count == 0 ? kNan : std::accumulate(begin, begin + count, 0.0) / static_cast<double>(count);
}

void summarise_losses(const RunRecords& run, Summary& summary) {
  std::vector<double> losses;
  for (const auto& record : run.steps) {
    if (std::isfinite(record.loss)) losses.push_back(record.loss);
  }
  summary.loss_steps = losses.empty() ? 0 : std::clamp<std::size_t>(losses.size() / 10, 1, 50);
  summary.first_loss = mean(losses.data(), summary.loss_steps);
  summary.final_loss = mean(losses.data() + (losses.size() - summary.loss_steps), summary.loss_steps);
}

void summarise_evals(const RunRecords& run, Summary& summary) {
  if (run.evals.empty()) return;
  const auto is_validation = [](const EvalRecord& record) { return record.split == "validation"; };
  summary.split = std::any_of(run.evals.begin(), run.evals.end(), is_validation) ? "validation" : run.evals[0].split;
  for (const auto& record : run.evals) {
    if (record.split != summary.split) continue;
    if (!summary.first_eval) summary.first_eval = record;
    summary.last_eval = record;
  }
}

}  // namespace

Summary summarise(const RunRecords& run) {
  Summary summary;
  summary.duration_s = run.duration_s;
  summary.peak_memory_bytes = run.peak_memory_bytes;
  std::vector<double> rates;
  for (const auto& record : run.steps) {
    summary.last_step = record.step;
    if (std::isfinite(record.tokens)) summary.tokens += record.tokens;
    if (std::isfinite(record.memory_bytes)) {
      summary.peak_memory_bytes = std::fmax(summary.peak_memory_bytes, record.memory_bytes);
    }
    rates.push_back(record.tokens_per_s);
  }
  summary.tokens_per_s = quantile(std::move(rates), 0.5);
  summarise_losses(run, summary);
  summarise_evals(run, summary);
  return summary;
}

}  // namespace gantry::cli::report
