#include "gantry/cli/planner/bench_plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/env.h"
#include "gantry/base/statistics.h"
#include "gantry/cli/planner/bench_output.h"
#include "gantry/cli/planner/bench_plan_gains.h"
#include "gantry/cli/planner/bench_plan_growth.h"
#include "gantry/cli/planner/bench_plan_ladder.h"
#include "gantry/cost/interference_report.h"
#include "gantry/cost/overlap_measurements.h"
#include "gantry/spec/named_models.h"

namespace gantry::cli::planner {
namespace {

constexpr double kMegabyte = 1024.0 * 1024.0;

constexpr const char* kRows[] = {"golden_1",
                                 "golden_2",
                                 "interference_l4",
                                 "interference_a100",
                                 "plan_22b_mist_space_s",
                                 "plan_22b_full_space_s",
                                 "plan_1024_devices_s",
                                 "speedup_vs_megatron_l4_geomean",
                                 "speedup_vs_megatron_a100_geomean",
                                 "speedup_settings",
                                 "ablation",
                                 "published_plan_22b",
                                 "growth"};

std::string percent(double share) { return fmt::format("{:.2f} %", 100 * share); }

BenchOutput::Form form_of(const PlanBenchOptions& options) {
  if (options.json) return BenchOutput::Form::kJson;
  return options.markdown ? BenchOutput::Form::kMarkdown : BenchOutput::Form::kText;
}

class PlanSuite {
 public:
  explicit PlanSuite(const PlanBenchOptions& options) : options_(options), out_("plan", form_of(options)) {}

  void run() {
    golden();
    interference("l4", "l4-mist-overlap", 1.3);
    interference("a100", "a100-mist", 2.5);
    search_time("plan_22b_mist_space_s", bench_input("gpt-22b", "l4-4x8", 512, 2048), "mist", 1, options_.rounds);
    search_time("plan_22b_full_space_s", bench_input("gpt-22b", "l4-4x8", 512, 2048), "full", 10, options_.rounds);
    if (!options_.quick) {
      search_time("plan_1024_devices_s", bench_input("gpt-22b", "l4-128x8", 4096, 2048, 96), "full", 60, 1);
    }
    bench_gains(options_, out_);
    if (!options_.quick && wanted("growth")) growth();
    out_.finish();
  }

 private:
  bool wanted(std::string_view row) const { return wants(options_, row); }

  static cost::StageQuery golden_stage(int layers, int checkpointed, int micro_batch, int data_parallel,
                                       int accumulation) {
    cost::StageQuery query;
    query.layers = layers;
    query.checkpointed = checkpointed;
    query.mesh = {1, data_parallel};
    query.policy.micro_batch = micro_batch;
    query.policy.data_parallel = data_parallel;
    query.accumulation = accumulation;
    return query;
  }

  void golden() {
    if (!wanted("golden_1") && !wanted("golden_2")) return;
    cost::CostOptions options = cost::CostOptions::artifact();
    options.flash_attention = false;
    const cost::CostModel model(spec::named_model("gpt-1.3b"), 2048, cost::load_profile("l4-mist"),
                                cost::load_cluster("l4-1x2"), options);
    BenchTable table{"golden",
                     "Published predictions of Mist's released code, GPT-1.3B on two L4 without FlashAttention",
                     {"what", "Gantry", "published", "relative difference"},
                     {},
                     {},
                     {}};
    const auto compare = [&](const std::string& what, const char* unit, double value, double published) {
      const double difference = value / published - 1;
      table.cells.push_back({what, fmt::format("{:.9g} {}", value, unit), fmt::format("{:.9g} {}", published, unit),
                             fmt::format("{:+.2e}", difference)});
      table.json.push_back({{"what", what},
                            {"value", value},
                            {"unit", unit},
                            {"published", published},
                            {"relative_difference", difference}});
    };
    const cost::StageCost whole = model.price(golden_stage(24, 24, 8, 2, 2));
    const double first = 2 * whole.t_s + whole.d_s;
    const double second = golden_pipeline(model);
    if (wanted("golden_1")) out_.row({"golden_1", first, "s", "published", 10.659405, first / 10.659405, 1});
    if (wanted("golden_2")) out_.row({"golden_2", second, "s", "published", 9.268924, second / 9.268924, 1});
    compare("iteration, data parallel", "s", first, 10.659405);
    compare("iteration, pipeline", "s", second, 9.268924);
    compare("peak forward, data parallel", "MB", whole.memory_forward_bytes / kMegabyte, 19255.25);
    compare("peak backward, data parallel", "MB", whole.memory_backward_bytes / kMegabyte, 19503.125);
    out_.table(table);
    golden_memory(model);
  }

  void golden_memory(const cost::CostModel& model) {
    BenchTable table{"golden_memory", "What these peaks are made of, MB", {"term", "forward", "backward"}, {}, {}, {}};
    const cost::StageQuery query = golden_stage(24, 24, 8, 2, 2);
    std::vector<std::string> names;
    std::map<std::string, std::array<double, 2>> terms;
    for (const bool backward : {false, true}) {
      for (const cost::CostTerm& term : model.explain_memory(query, backward)) {
        if (!terms.contains(term.name)) names.push_back(term.name);
        terms[term.name][backward ? 1 : 0] += term.value / kMegabyte;
      }
    }
    for (const std::string& name : names) {
      const auto [forward, backward] = terms[name];
      table.cells.push_back({name, fmt::format("{:.3f}", forward), fmt::format("{:.3f}", backward)});
      table.json.push_back({{"term", name}, {"forward_mb", forward}, {"backward_mb", backward}});
    }
    out_.table(table);
  }

  static double golden_pipeline(const cost::CostModel& model) {
    cost::StageQuery first = golden_stage(12, 5, 2, 1, 16);
    first.warmup = 1;
    first.last = false;
    cost::StageQuery second = golden_stage(12, 0, 2, 1, 16);
    second.first = false;
    const cost::StageCost a = model.price(first);
    const cost::StageCost b = model.price(second);
    return 15 * std::max(a.t_s, b.t_s) + a.t_s + b.t_s + std::max({0.0, a.d_s, b.d_s - a.t_s});
  }

  void interference(const std::string& kind, const char* profile_name, double bar) {
    const std::string row = "interference_" + kind;
    if (!wanted(row)) return;
    const auto data = base::data_dir(std::filesystem::absolute(options_.source));
    const auto path = data.value_or("../shared/data") / ("mist-" + kind) / "overlap_measurements.json";
    if (!data || !std::filesystem::exists(path)) {
      out_.missing(row, "bar", path.string() + " (GANTRY_DATA names the folder)");
      return;
    }
    const cost::Profile profile = cost::load_profile(profile_name);
    const auto measured = cost::read_overlap_measurements(path, profile);
    const auto report = cost::interference_report(measured.samples, profile.factors(0, 0));
    const double error = 100 * report.per_shape;
    out_.row({row, error, "%", "bar", bar, bar / error, 1});
    BenchTable table{row,
                     fmt::format("Interference, {}: mean relative error on {} held-out measurements ({} fitted)", kind,
                                 report.held_out_samples, report.fitted_samples),
                     {"model", "error"},
                     {},
                     {},
                     {}};
    const auto add = [&](const char* model, double value) {
      table.cells.push_back({model, percent(value)});
      table.json.push_back({{"device", kind}, {"model", model}, {"error_percent", 100 * value}});
    };
    add("sum of the channels", report.sum);
    add("max of the channels", report.max);
    add("shipped factors (seen both halves)", report.shipped);
    add("stagewise fit, the published procedure", report.stagewise);
    add("joint fit, one set", report.joint);
    add("joint fit, one set a group shape", report.per_shape);
    out_.table(table);
  }

  void search_time(const char* row, const plan::SearchInput& input, const char* space, double bar_s,
                   std::int64_t rounds) {
    if (!wanted(row)) return;
    std::vector<double> seconds;
    for (std::int64_t i = 0; i < rounds; ++i) {
      const TimedSearch timed = timed_search(input, plan::named_space(space));
      if (!timed.result.feasible()) base::fail("{}: the search found no plan that fits", row);
      seconds.push_back(timed.cpu_s);
    }
    const double value = base::median(seconds);
    out_.row({row, value, "CPU s", "bar", bar_s, bar_s / value, rounds});
  }

  void growth() {
    const std::vector<GrowthPoint> points = measure_growth();
    BenchTable sizes{"growth",
                     "Growth of the search with layers (32 L4, batch 512) and devices (48 layers), GPT of 22b's width",
                     {"case", "Mist's space, CPU s", "full space, CPU s"},
                     {},
                     {},
                     {}};
    BenchTable knobs{
        "growth_knobs", "Growth with the knobs (48 layers, 32 L4, batch 512)", {"step", "space", "CPU s"}, {}, {}, {}};
    for (const GrowthPoint& point : points) {
      base::OrderedJson json{
          {"axis", point.axis}, {"x", point.x}, {"space", point.space}, {"search_cpu_s", point.cpu_s}};
      if (std::isfinite(point.iteration_s)) json["iteration_s"] = point.iteration_s;
      const std::string cpu = fmt::format("{:.3f}", point.cpu_s);
      if (point.axis == "knobs") {
        knobs.cells.push_back({fmt::format("{}", point.x), point.space, cpu});
        knobs.json.push_back(std::move(json));
        continue;
      }
      const std::string name = fmt::format("{} {}", point.x, point.axis);
      if (sizes.cells.empty() || sizes.cells.back()[0] != name) sizes.cells.push_back({name});
      sizes.cells.back().push_back(cpu);
      sizes.json.push_back(std::move(json));
    }
    out_.table(sizes);
    out_.table(knobs);
    if (!options_.growth_plot.empty()) write_growth(points, options_.growth_plot);
  }

  const PlanBenchOptions& options_;
  BenchOutput out_;
};

}  // namespace

bool wants(const SuiteOptions& options, std::string_view row) {
  return options.row.empty() || std::ranges::find(options.row, row) != options.row.end();
}

void bench_plan(const PlanBenchOptions& options) {
  for (const std::string& row : options.row) {
    GANTRY_CHECK(std::ranges::find(kRows, row) != std::end(kRows), "suite plan has no row '{}'; it has {}", row,
                 fmt::join(kRows, ", "));
  }
  GANTRY_CHECK(options.rounds > 0, "--rounds is {}, expected at least 1", options.rounds);
  PlanSuite(options).run();
}

}  // namespace gantry::cli::planner
