#include "gantry/train/memory_plan.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/progress.h"
#include "gantry/base/statistics.h"
#include "gantry/base/timer.h"
#include "gantry/models/layer_stack.h"

namespace gantry::train {
namespace {

using layers::LayerMemory;
using layers::MemoryMode;

constexpr int kRounds = 3;
// Of what layers keep by their own count, the share that a step is certain to hold.
constexpr double kCertain = 0.9;

std::vector<LayerMemory> exact_choices() {
  std::vector<LayerMemory> result;
  for (const MemoryMode attention : {MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun}) {
    for (const MemoryMode mlp : {MemoryMode::kRecompute, MemoryMode::kRerun}) {
      result.push_back({attention, mlp, MemoryMode::kInPlace});
    }
  }
  return result;
}

double timed_pass(models::LayerStack& layer, const LayerMemory& memory, const at::Tensor& x, const at::Tensor& dy) {
  layer.memory.assign(layer.memory.size(), memory);
  if (base::interrupted()) throw base::Interrupted("interrupted while measuring; no step was made");
  const base::Timer timer;
  layer.forward(x).backward(dy);
  const double seconds = timer.seconds();
  for (const at::Tensor& parameter : layer.parameters()) at::Tensor(parameter).mutable_grad().reset();
  return seconds * 1e3;
}

// How many layers to move from each mode of the hull to the next one: all steps sorted by bytes a millisecond are, on a
// convex hull, simply the steps of the hull in order. `moves` of them are taken.
std::vector<LayerMemory> after_moves(const std::vector<ModeCost>& hull, std::int64_t num_layers, std::int64_t moves) {
  std::vector<LayerMemory> result(static_cast<std::size_t>(num_layers), hull.front().memory);
  for (std::size_t step = 1; step < hull.size() && moves > 0; ++step) {
    for (auto layer = result.begin(); layer != result.end() && moves > 0; ++layer, --moves) *layer = hull[step].memory;
  }
  return result;
}

// Bytes that the layers keep after `moves`, by their own count.
std::int64_t kept_bytes(const std::vector<ModeCost>& hull, std::int64_t num_layers, std::int64_t moves) {
  const auto step = static_cast<std::size_t>(moves / num_layers);
  const std::int64_t further = moves % num_layers;
  const std::int64_t saved = further > 0 ? hull[step].saved_bytes - hull[step + 1].saved_bytes : 0;
  return num_layers * hull[step].saved_bytes - further * saved;
}

// As many further moves as the excess needs by the layers' own bytes, at least one.
std::int64_t after_excess(const std::vector<ModeCost>& hull, std::int64_t num_layers, std::int64_t moves,
                          std::uint64_t excess) {
  const std::int64_t most = num_layers * (static_cast<std::int64_t>(hull.size()) - 1);
  const std::int64_t kept = kept_bytes(hull, num_layers, moves);
  do {
    ++moves;
  } while (moves < most && kept - kept_bytes(hull, num_layers, moves) < static_cast<std::int64_t>(excess));
  return moves;
}

}  // namespace

std::vector<ModeCost> measure_modes(const spec::ModelConfig& config, std::int64_t batch, std::int64_t tokens,
                                    at::ScalarType type) {
  const at::AutoGradMode gradients(true);
  spec::ModelConfig single = config;
  single.num_layers = 1;
  const auto layer = models::make_layer_stack(single, 0);
  layer->to(type);
  layer->train();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{1});
  const at::Tensor x = at::randn({batch, tokens, config.hidden_size}, generator, at::kFloat).to(type).requires_grad_();
  const at::Tensor dy = at::randn(x.sizes(), generator, at::kFloat).to(type);
  const auto choices = exact_choices();
  std::vector<std::vector<double>> times(choices.size());
  for (int round = 0; round <= kRounds; ++round) {  // the first warms up
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const double time = timed_pass(*layer, choices[i], x, dy);
      if (round > 0) times[i].push_back(time);
    }
  }
  models::SavedLayerBytes saved(config, batch, tokens, type);
  std::vector<ModeCost> result;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    result.push_back({choices[i], saved.of(choices[i]), base::median(times[i])});
  }
  return result;
}

std::vector<ModeCost> pareto_modes(std::vector<ModeCost> costs) {
  std::sort(costs.begin(), costs.end(), [](const ModeCost& a, const ModeCost& b) {
    return std::pair(a.milliseconds, a.saved_bytes) < std::pair(b.milliseconds, b.saved_bytes);
  });
  // Bytes a millisecond from a to b.
  const auto slope = [](const ModeCost& a, const ModeCost& b) {
    return static_cast<double>(a.saved_bytes - b.saved_bytes) / std::max(1e-9, b.milliseconds - a.milliseconds);
  };
  std::vector<ModeCost> hull;
  for (const ModeCost& cost : costs) {
    if (!hull.empty() && cost.saved_bytes >= hull.back().saved_bytes) continue;
    while (hull.size() >= 2 && slope(hull[hull.size() - 2], cost) >= slope(hull[hull.size() - 2], hull.back())) {
      hull.pop_back();
    }
    hull.push_back(cost);
  }
  return hull;
}

MemoryPlan fit_memory(const std::vector<ModeCost>& costs, std::int64_t num_layers, const MemoryBudget& budget,
                      const PeakMeasure& peak) {
  GANTRY_CHECK(!costs.empty() && num_layers > 0, "memory plan: no modes or no layers to choose for");
  MemoryPlan plan;
  plan.hull = pareto_modes(costs);
  const std::int64_t most = num_layers * (static_cast<std::int64_t>(plan.hull.size()) - 1);
  const auto certain_bytes = [&](std::int64_t moves) {
    return budget.rest_bytes +
           static_cast<std::uint64_t>(kCertain * static_cast<double>(kept_bytes(plan.hull, num_layers, moves)));
  };
  plan.least_bytes = certain_bytes(most);
  std::int64_t moves = 0;
  while (moves < most && certain_bytes(moves) > budget.bytes) ++moves;
  plan.layers = after_moves(plan.hull, num_layers, moves);
  while (certain_bytes(moves) <= budget.bytes) {
    plan.layers = after_moves(plan.hull, num_layers, moves);
    plan.peak_bytes = peak(plan.layers);
    plan.fits = plan.peak_bytes && *plan.peak_bytes <= budget.bytes;
    if (plan.fits || moves == most) break;
    moves = plan.peak_bytes ? after_excess(plan.hull, num_layers, moves, *plan.peak_bytes - budget.bytes)
                            : std::min(most, moves + num_layers);
  }
  for (const ModeCost& mode : plan.hull) {
    plan.used.push_back(std::count(plan.layers.begin(), plan.layers.end(), mode.memory));
  }
  return plan;
}

void require_fit(const MemoryPlan& plan, std::uint64_t budget_bytes, std::string_view advice) {
  if (plan.fits) return;
  const std::string least = plan.peak_bytes
                                ? fmt::format("the least peak measured is {}", base::format_bytes(*plan.peak_bytes))
                                : fmt::format("a step takes at least {}", base::format_bytes(plan.least_bytes));
  const std::string more = plan.peak_bytes ? base::format_bytes(*plan.peak_bytes + *plan.peak_bytes / 50) : "more";
  throw base::InfeasibleError(fmt::format("no choice of memory modes fits: {}, the budget is {}. {}, or allow {}",
                                          least, base::format_bytes(budget_bytes), advice, more));
}

base::OrderedJson used_modes_to_json(const MemoryPlan& plan) {
  base::OrderedJson result = base::OrderedJson::array();
  for (std::size_t i = 0; i < plan.hull.size(); ++i) {
    if (plan.used[i] == 0) continue;
    base::OrderedJson mode = memory_to_json({plan.hull[i].memory})[0];
    mode["layers"] = plan.used[i];
    result.push_back(std::move(mode));
  }
  return result;
}

base::OrderedJson memory_to_json(const std::vector<LayerMemory>& modes) {
  base::OrderedJson result = base::OrderedJson::array();
  for (const LayerMemory& layer : modes) {
    result.push_back({{"attention", spec::memory_mode_name(layer.attention)},
                      {"mlp", spec::memory_mode_name(layer.mlp)},
                      {"norm", spec::memory_mode_name(layer.norm)}});
  }
  return result;
}

std::vector<LayerMemory> memory_from_json(const base::Json& json, std::string_view source) {
  GANTRY_CHECK(json.is_array(), "{}: memory_modes: expected a list, found {}", source, json.type_name());
  std::vector<LayerMemory> result;
  for (const base::Json& layer : json) {
    const auto mode = [&](const char* module) {
      return spec::parse_memory_mode(base::json_get<std::string>(layer, module, source));
    };
    result.push_back({mode("attention"), mode("mlp"), mode("norm")});
  }
  return result;
}

std::string describe(const MemoryPlan& plan) {
  std::string text = fmt::format("{:<48} {:>12} {:>10} {:>7}\n", "memory mode", "MiB a layer", "ms a layer", "layers");
  for (std::size_t i = 0; i < plan.hull.size(); ++i) {
    const ModeCost& mode = plan.hull[i];
    text += fmt::format("{:<48} {:>12.1f} {:>10.1f} {:>7}\n", spec::describe(mode.memory),
                        static_cast<double>(mode.saved_bytes) / (1 << 20), mode.milliseconds, plan.used[i]);
  }
  return text;
}

}  // namespace gantry::train
