// gantry simulate: one iteration of a plan, event by event.
#include <algorithm>
#include <cstdio>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/cli/planner/inputs.h"
#include "gantry/cli/planner/plan_text.h"
#include "gantry/cli/verbs.h"
#include "gantry/plan/plan_file.h"
#include "gantry/simulate/pipeline.h"

namespace gantry::cli {
namespace {

namespace text = planner;

struct SimulateOptions {
  std::optional<std::string> model;
  std::optional<std::string> cluster;
  std::optional<std::string> profile;
  std::int64_t runs = 1;
  double noise = 0;
  std::int64_t straggler_stage = -1;
  double straggler_factor = 1.5;
  std::uint64_t seed = 1;
  std::optional<std::string> trace;
  std::optional<std::string> svg;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Instead of what the plan names");
    visit("model", model, "model name, folder or file");
    visit("cluster", cluster, "cluster name or file");
    visit("profile", profile, "hardware profile");
    visit.group("Simulation");
    visit("noise", noise, "standard deviation of log-normal factors on every piece of work");
    visit("runs", runs, "iterations with different noise; the spread is printed");
    visit("straggler_stage", straggler_stage, "stage whose work takes longer; -1: none");
    visit("straggler_factor", straggler_factor, "how much longer");
    visit("seed", seed, "of the noise");
    visit.group("Output");
    visit("trace", trace, "trace file for Perfetto or chrome://tracing");
    visit("svg", svg, "timeline to draw");
    visit("json", json, "print one JSON object");
  }
};

plan::SearchInput input_of(const plan::TrainPlan& plan, const SimulateOptions& options) {
  planner::TargetOptions target;
  target.model = options.model.value_or("");
  target.cluster = options.cluster;
  target.profile = options.profile;
  return planner::input_of_plan(plan, target);
}

struct Spread {
  double least = 0;
  double median = 0;
  double most = 0;
};

Spread repeat(const plan::TrainPlan& plan, const cost::CostModel& model, simulate::SimulationOptions options,
              std::int64_t runs) {
  std::vector<double> seconds;
  options.record = false;
  for (std::int64_t i = 0; i < runs; ++i) {
    seconds.push_back(simulate::run(plan, model, options).iteration_s);
    ++options.seed;
  }
  std::ranges::sort(seconds);
  return {seconds.front(), seconds[seconds.size() / 2], seconds.back()};
}

void print_text(const plan::SearchInput& input, const plan::TrainPlan& plan, const simulate::Outcome& outcome,
                const Spread& spread, std::int64_t runs) {
  std::printf("%s\n\n", text::headline(input).c_str());
  std::printf("  simulated iteration %.3f s, closed form %.3f s (%+.1f %%), %.0f tokens/s\n", outcome.iteration_s,
              plan.predicted->iteration_s, 100 * (plan.predicted->iteration_s / outcome.iteration_s - 1),
              static_cast<double>(plan.global_batch * plan.sequence) / outcome.iteration_s);
  if (runs > 1) {
    std::printf("  %ld runs: %.3f s to %.3f s, median %.3f s\n", static_cast<long>(runs), spread.least, spread.most,
                spread.median);
  }
  std::printf("\n  %5s %12s %12s %8s %10s\n", "stage", "computing", "idle", "idle", "in flight");
  for (std::size_t i = 0; i < outcome.busy_s.size(); ++i) {
    std::printf("  %5zu %10.3f s %10.3f s %6.1f %% %10.1f\n", i, outcome.busy_s[i], outcome.bubble_s[i],
                100 * outcome.bubble_s[i] / outcome.iteration_s, outcome.peak_in_flight[i]);
  }
}

void print_json(const plan::TrainPlan& plan, const simulate::Outcome& outcome, const Spread& spread) {
  base::OrderedJson json;
  json["iteration_s"] = outcome.iteration_s;
  json["closed_form_s"] = plan.predicted->iteration_s;
  json["runs"] = {{"least_s", spread.least}, {"median_s", spread.median}, {"most_s", spread.most}};
  json["busy_s"] = outcome.busy_s;
  json["bubble_s"] = outcome.bubble_s;
  json["peak_in_flight"] = outcome.peak_in_flight;
  std::printf("%s\n", json.dump().c_str());
}

int simulate_plan(const std::string& path, const SimulateOptions& options) {
  GANTRY_CHECK(options.noise >= 0 && options.noise <= 2, "--noise {}: expected 0 to 2", options.noise);
  GANTRY_CHECK(options.straggler_factor > 0 && options.straggler_factor <= 1000,
               "--straggler-factor {}: expected above 0, at most 1000", options.straggler_factor);
  GANTRY_CHECK(options.runs >= 1 && options.runs <= 100'000, "--runs {}: expected 1 to 100,000", options.runs);
  plan::TrainPlan plan = plan::read_plan(path);
  const plan::SearchInput input = input_of(plan, options);
  planner::require_sound(plan, input, path);
  GANTRY_CHECK(options.straggler_stage < static_cast<std::int64_t>(plan.stages.size()),
               "--straggler-stage {}: the plan has {} stages, the first is 0", options.straggler_stage,
               plan.stages.size());
  const auto model = plan::cost_model(input, plan);
  plan::evaluate(plan, *model);
  simulate::SimulationOptions simulation;
  simulation.noise = options.noise;
  simulation.straggler_stage = static_cast<int>(options.straggler_stage);
  simulation.straggler_factor = options.straggler_stage >= 0 ? options.straggler_factor : 1;
  simulation.seed = options.seed;
  const simulate::Outcome outcome = simulate::run(plan, *model, simulation);
  const Spread spread = repeat(plan, *model, simulation, options.runs);
  if (options.json) {
    print_json(plan, outcome, spread);
  } else {
    print_text(input, plan, outcome, spread, options.runs);
  }
  if ((options.trace || options.svg) && !options.json) std::printf("\n");
  const auto write = [&](const std::optional<std::string>& file, const std::string& content) {
    if (!file) return;
    base::write_file_atomically(*file, content);
    if (!options.json) std::printf("wrote %s\n", file->c_str());
  };
  if (options.trace) write(options.trace, simulate::trace_json(outcome));
  if (options.svg) write(options.svg, simulate::timeline_svg(outcome, input.model_name + " on " + input.cluster.name));
  return 0;
}

}  // namespace

void add_simulate(Command& program) {
  Command& verb = program.add_verb("simulate", "Plays a plan event by event: timeline, trace, noise, stragglers");
  struct State {
    std::string plan;
    SimulateOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("PLAN", state->plan, "plan file of `gantry plan -o`");
  verb.options(state->options);
  verb.on_run([state] { return simulate_plan(state->plan, state->options); });
}

}  // namespace gantry::cli
