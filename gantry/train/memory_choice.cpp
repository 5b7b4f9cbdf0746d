#include "gantry/train/memory_choice.h"

#include "gantry/base/bytes.h"
#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/log.h"
#include "gantry/base/process.h"
#include "gantry/base/progress.h"
#include "gantry/models/layer_stack.h"
#include "gantry/train/out_of_memory.h"

namespace gantry::train {
namespace {

constexpr std::string_view kSmallerBatch =
    "Lower the batch (and raise the accumulation; --batch auto looks for both) or the sequence length";
constexpr std::string_view kShorter = "One sequence at a time takes that: lower the sequence length";

std::uint64_t budget_of(const TrainOptions& options) {
  return base::parse_bytes(options.memory_budget, "--memory-budget");
}

}  // namespace

// The modes to choose from are those of the options: one, or the exact ones.
MemoryPlan MemoryChoice::fit(std::int64_t micro_batch, std::uint64_t budget_bytes) {
  const spec::ModelConfig& config = model_.config();
  const std::int64_t tokens = options_.sequence_length;
  base::release_freed_memory();
  const MemoryBudget budget{.bytes = budget_bytes, .rest_bytes = base::resident_bytes()};
  const auto fitted = unless_out_of_memory([&] {
    std::vector<ModeCost> costs;
    if (options_.memory_mode == "auto") {
      costs = measure_modes(config, micro_batch, tokens, model_.dtype());
    } else {
      const auto mode = spec::parse_memory_mode(options_.memory_mode);
      const layers::LayerMemory memory{mode, mode, mode};
      costs = {{memory, models::saved_layer_bytes(config, memory, micro_batch, tokens, model_.dtype()), 0}};
    }
    return fit_memory(costs, config.num_layers, budget, [&](const auto& layers) -> std::optional<std::uint64_t> {
      if (base::interrupted()) throw base::Interrupted("interrupted while measuring; no step was made");
      model_.set_memory(layers);
      const auto batch = unless_out_of_memory([&] { return runner_.fullest_batch(micro_batch, tokens); });
      return batch ? runner_.probe_peak_bytes(*batch) : std::nullopt;
    });
  });
  // A single layer ran out of memory: there is nothing to tell.
  return fitted.value_or(
      MemoryPlan{.layers = {}, .peak_bytes = {}, .least_bytes = budget.rest_bytes, .hull = {}, .used = {}});
}

void MemoryChoice::require(MemoryPlan plan, std::int64_t micro_batch, std::uint64_t budget_bytes,
                           std::string_view advice) {
  if (!plan.fits && !plan.peak_bytes && !plan.layers.empty() && plan.least_bytes < base::total_memory_bytes() / 2) {
    model_.set_memory(plan.layers);
    plan.peak_bytes = runner_.probe_peak_bytes(runner_.fullest_batch(micro_batch, options_.sequence_length));
  }
  require_fit(plan, budget_bytes, advice);
}

void MemoryChoice::choose_modes(std::int64_t micro_batch) {
  if (options_.memory_mode != "auto") {
    const auto mode = spec::parse_memory_mode(options_.memory_mode);
    model_.set_memory({mode, mode, mode});
  }
  if (options_.memory_budget.empty()) return;
  base::log_info("measuring memory modes");
  const MemoryPlan plan = fit(micro_batch, budget_of(options_));
  require(plan, micro_batch, budget_of(options_), kSmallerBatch);
  base::log_info("memory budget {}: peak {} of a step\n{}", options_.memory_budget,
                 base::format_bytes(*plan.peak_bytes), describe(plan));
}

std::optional<double> MemoryChoice::step_seconds(const MicroBatchTrial& trial) {
  const std::int64_t sequences = sequences_per_step(options_);
  runner_.set_several(trial.accumulation > 1);
  model_.set_memory(trial.memory.layers);
  double total = 0;
  // Micro-batches of a step have one size, or two that differ by a sequence.
  const std::int64_t larger = sequences % trial.accumulation, smaller = trial.accumulation - larger;
  const std::int64_t floor = sequences / trial.accumulation;
  for (const auto& [rows, count] : {std::pair(floor + 1, larger), std::pair(floor, smaller)}) {
    if (count == 0) continue;
    if (base::interrupted()) throw base::Interrupted("interrupted while measuring; no step was made");
    const auto seconds = runner_.probe_seconds(data_.peek(rows));
    if (!seconds) return std::nullopt;
    total += static_cast<double>(count) * *seconds;
  }
  return total;
}

MicroBatchPlan MemoryChoice::choose_micro_batch() {
  const std::int64_t sequences = sequences_per_step(options_);
  const std::uint64_t budget = budget_of(options_);
  base::log_info("looking for the micro-batch: {} sequences a step, budget {}", sequences, options_.memory_budget);
  const auto fit_size = [&](std::int64_t micro_batch) {
    runner_.set_several(micro_batch < sequences);
    MemoryPlan plan = fit(micro_batch, budget);
    base::log_info("micro-batch {}: {}", micro_batch,
                   plan.fits ? "peak " + base::format_bytes(*plan.peak_bytes) : "no room");
    return plan;
  };
  const auto seconds = [&](const MicroBatchTrial& trial) { return step_seconds(trial); };
  MicroBatchPlan plan = search_micro_batch(sequences, {.fit = fit_size, .step_seconds = seconds});
  if (!plan.chosen) require(plan.trials.front().memory, 1, budget, kShorter);
  if (!plan.chosen) base::fail("memory ran out while micro-batches were timed; allow less with --memory-budget");
  const MicroBatchTrial& best = plan.best();
  model_.set_memory(best.memory.layers);
  runner_.set_several(best.accumulation > 1);
  base::release_freed_memory();  // of the other sizes
  base::log_info("memory budget {}: micro-batch {} of {} sequences a step\n{}", options_.memory_budget,
                 best.micro_batch, sequences, describe(plan));
  return plan;
}

}  // namespace gantry::train
