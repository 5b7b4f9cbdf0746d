#include "gantry/cli/layers_bench/step_arms.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "gantry/base/interrupt.h"
#include "gantry/base/progress.h"
#include "gantry/base/statistics.h"
#include "gantry/cli/bench_server.h"

namespace gantry::cli::layers_bench {
namespace {

std::unique_ptr<BenchServer> start(const Bench& bench, const StepCase& settings, const StepArm& arm) {
  const base::OrderedJson json{{"family", settings.family},
                               {"layers", kStepLayers},
                               {"sequence_length", settings.sequence_length},
                               {"dropout", arm.dropout},
                               {"dtype", "fp32"},
                               {"arm", arm.arm},
                               {"budget_bytes", settings.budget_bytes},
                               {"batch", settings.batch},
                               {"timed_batch", settings.timed_batch},
                               {"threads", bench.threads}};
  const std::vector<std::string> command =
      arm.gantry ? std::vector<std::string>{std::filesystem::read_symlink("/proc/self/exe").string(), "bench", "layers",
                                            "--worker", json.dump()}
                 : std::vector<std::string>{bench.python, bench.script("layers_step.py"), "--settings", json.dump()};
  return std::make_unique<BenchServer>(arm.name(), command);
}

void stop_if_interrupted() {
  if (base::interrupted()) throw base::Interrupted("interrupted");
}

}  // namespace

std::string StepArm::name() const {
  return (gantry ? "Gantry " : "PyTorch ") + arm + (dropout > 0 ? "" : ", no dropout");
}

double StepResult::speed() const { return samples_per_s.empty() ? 0 : base::median(samples_per_s); }

double StepResult::spread() const {
  if (samples_per_s.empty() || speed() == 0) return 0;
  const auto [low, high] = std::ranges::minmax(samples_per_s);
  return (high - low) / speed();
}

std::vector<StepResult> measure_steps(const Bench& bench, const StepCase& settings, const std::vector<StepArm>& arms,
                                      bool timed) {
  std::vector<StepResult> results;
  std::vector<std::unique_ptr<BenchServer>> servers;
  const auto rounds = static_cast<std::uint64_t>(timed ? bench.suite.rounds : 0);
  base::Progress progress(fmt::format("{}, S={}", settings.family, settings.sequence_length),
                          arms.size() * (1 + rounds), "measurements");
  std::uint64_t done = 0;
  for (const StepArm& arm : arms) {
    stop_if_interrupted();
    progress.update(done++, settings.batch > 0 ? arm.name() : arm.name() + ": largest batch");
    auto server = start(bench, settings, arm);
    StepResult result{.arm = arm, .missing = server->missing()};
    if (result.missing.empty()) {
      const auto field = [&](const char* name) {
        return base::json_get<std::int64_t>(server->settings(), name, arm.name());
      };
      result.batch = field("batch");
      result.timed_batch = field("timed_batch");
      result.growth_bytes = field("growth_bytes");
    }
    // A server that has nothing more to measure gives its memory back.
    if (!timed || !arm.timed || result.timed_batch == 0) server.reset();
    results.push_back(std::move(result));
    servers.push_back(std::move(server));
  }
  for (std::int64_t round = 0; timed && round < bench.suite.rounds; ++round) {
    for (std::size_t i = 0; i < servers.size(); ++i) {
      stop_if_interrupted();
      progress.update(done++, arms[i].name());
      if (servers[i] == nullptr || !results[i].missing.empty()) continue;
      const base::Json answer = servers[i]->run();
      results[i].samples_per_s.push_back(base::json_get<double>(answer, "samples_per_s", arms[i].name()));
    }
  }
  progress.update(done);
  return results;
}

planner::BenchTable step_table(const std::string& name, const std::string& title,
                               const std::vector<StepResult>& results) {
  planner::BenchTable table{name, title, {"arm", "batch", "peak growth, MiB", "timed batch", "samples/s", "spread"},
                            {},   {},    {}};
  for (const StepResult& result : results) {
    if (!result.missing.empty()) {
      table.notes.push_back(fmt::format("{}: missing: {}", result.arm.name(), result.missing));
      continue;
    }
    const double mib = static_cast<double>(result.growth_bytes) / kMib;
    const bool timed = !result.samples_per_s.empty();
    table.cells.push_back({result.arm.name(), fmt::format("{}", result.batch), fmt::format("{:.0f}", mib),
                           timed ? fmt::format("{}", result.timed_batch) : "–",
                           timed ? fmt::format("{:.3f}", result.speed()) : "–",
                           timed ? fmt::format("{:.0f} %", 100 * result.spread()) : "–"});
    table.json.push_back({{"arm", result.arm.name()},
                          {"batch", result.batch},
                          {"growth_bytes", result.growth_bytes},
                          {"timed_batch", result.timed_batch},
                          {"samples_per_s", result.speed()},
                          {"spread", result.spread()}});
  }
  return table;
}

}  // namespace gantry::cli::layers_bench
