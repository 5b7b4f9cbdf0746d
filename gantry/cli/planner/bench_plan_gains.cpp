#include "gantry/cli/planner/bench_plan_gains.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"
#include "gantry/cli/planner/bench_plan_ladder.h"

namespace gantry::cli::planner {
namespace {

constexpr const char* kFamilies[] = {"gpt", "llama"};
constexpr const char* kKinds[] = {"l4", "a100"};

// The paper's average gain over Megatron-LM with FlashAttention, measured.
double paper_gain(std::string_view kind) { return kind == "l4" ? 1.32 : 1.34; }

BenchTable make_table(const char* name, std::string title, std::vector<std::string> columns) {
  BenchTable table;
  table.name = name;
  table.title = std::move(title);
  table.columns = std::move(columns);
  return table;
}

template <class Seconds>
std::vector<double> gains_of(const std::vector<LadderCase>& cases, Seconds seconds) {
  std::vector<double> gains;
  for (const LadderCase& c : cases) gains.push_back(c.megatron_s / seconds(c));
  return gains;
}

std::vector<LadderCase> run_ladder(const std::string& family, const std::string& kind, bool ablation) {
  std::vector<LadderCase> cases;
  for (const Rung& rung : kRungs) cases.push_back(run_case(rung_input(family, rung, kind), ablation));
  return cases;
}

class Gains {
 public:
  Gains(const PlanBenchOptions& options, BenchOutput& out) : options_(options), out_(out) {}

  void run() {
    for (const char* kind : kKinds) ladder(kind);
    if (wants(options_, "speedup_settings")) settings();
    if (wants(options_, "published_plan_22b")) published();
  }

 private:
  void ladder(const std::string& kind) {
    const std::string row = "speedup_vs_megatron_" + kind + "_geomean";
    const bool ablation = !options_.quick && wants(options_, "ablation");
    if (!wants(options_, row) && !ablation) return;
    std::vector<LadderCase> all;
    std::vector<BenchTable> tables;
    for (const char* family : kFamilies) {
      const std::vector<LadderCase> cases = run_ladder(family, kind, ablation);
      if (ablation) tables.push_back(ablation_table(family, kind, cases));
      all.insert(all.end(), cases.begin(), cases.end());
    }
    if (wants(options_, row)) gain_row(row, kind, gains_of(all, [](const LadderCase& c) { return c.mist_s; }));
    if (ablation) {
      gain_row("full_" + row, kind, gains_of(all, [](const LadderCase& c) { return c.steps_s.back(); }));
    }
    for (const BenchTable& table : tables) out_.table(table);
  }

  void gain_row(const std::string& row, const std::string& kind, const std::vector<double>& gains) {
    const double mean = geometric_mean(gains);
    out_.row({row, mean, "x", "paper, measured average", paper_gain(kind), mean / paper_gain(kind), 1});
  }

  static BenchTable ablation_table(const std::string& family, const std::string& kind,
                                   const std::vector<LadderCase>& cases) {
    BenchTable table = make_table(
        "ablation",
        fmt::format("Ablation, {} on {}: predicted iteration, and speed-up over the best Megatron-space plan", family,
                    kind),
        {"space"});
    for (std::size_t i = 0; i < cases.size(); ++i) {
      table.columns.push_back(fmt::format("{} on {}", kRungs[i].size, kRungs[i].devices));
    }
    table.columns.emplace_back("geometric mean");
    const auto line = [&](const std::string& name, auto seconds) {
      std::vector<std::string> cells{name};
      for (const LadderCase& c : cases) {
        const double s = seconds(c);
        base::OrderedJson json{{"device", kind}, {"model", c.model}, {"cluster", c.cluster}, {"space", name}};
        std::string cell = seconds_text(s);
        if (std::isfinite(s)) json["iteration_s"] = s;
        if (std::isfinite(s) && std::isfinite(c.megatron_s)) {
          json["speedup_vs_megatron"] = c.megatron_s / s;
          cell += fmt::format(", {:.3f}x", c.megatron_s / s);
        }
        cells.push_back(std::move(cell));
        table.json.push_back(std::move(json));
      }
      cells.push_back(fmt::format("{:.3f}x", geometric_mean(gains_of(cases, seconds))));
      table.cells.push_back(std::move(cells));
    };
    line("megatron", [](const LadderCase& c) { return c.megatron_s; });
    const std::vector<plan::SearchSpace> spaces = plan::ablation_spaces();
    for (std::size_t i = 0; i < spaces.size(); ++i) {
      line(spaces[i].name, [&](const LadderCase& c) { return c.steps_s[i]; });
    }
    provenance_notes(table, kind, cases);
    return table;
  }

  static void provenance_notes(BenchTable& table, const std::string& kind, const std::vector<LadderCase>& cases) {
    std::string counts;
    for (const LadderCase& c : cases) {
      counts += fmt::format("{}{} {}/{}/{}/{}", counts.empty() ? "" : ", ", c.model, c.operators[0], c.operators[1],
                            c.operators[2], c.operators[3]);
      table.json.push_back({{"device", kind},
                            {"model", c.model},
                            {"operators_measured", c.operators[0]},
                            {"operators_fitted", c.operators[1]},
                            {"operators_roofline", c.operators[2]},
                            {"operators_data_sheet", c.operators[3]}});
    }
    table.notes.push_back(fmt::format(
        "Operator prices of the Megatron-space search, measured/fitted/roofline/data sheet: {}. {}", counts,
        kind == "l4"
            ? "The profile has measured operators for h = 2048 only; rooflines fitted to them price the rest."
            : "The profile has measured links, copies and interference; data-sheet rooflines price operators."));
  }

  // The same ladder under other profiles and without FlashAttention.
  void settings() {
    BenchTable table = make_table(
        "speedup_settings", "Predicted gain of Mist's space over the Megatron space, by setting (geometric means)",
        {"cluster", "profile", "FlashAttention", "GPT", "Llama", "both", "of 7B and larger", "largest"});
    for (const char* kind : kKinds) {
      const std::string_view own = std::string_view(kind) == "l4" ? "l4" : "a100-40g";
      for (const std::string& profile : {std::string(own), fmt::format("{}-mist", kind)}) {
        for (const bool flash : {true, false}) setting(table, kind, profile, flash);
      }
    }
    table.notes.emplace_back(
        "l4-mist and a100-mist carry the interference factors that Mist planned with, l4 and a100-40g factors fitted "
        "anew to the overlap measurements.");
    out_.table(table);
  }

  static void setting(BenchTable& table, const char* kind, const std::string& profile, bool flash) {
    std::vector<double> gpt, llama, both, large;
    for (const char* family : kFamilies) {
      for (const Rung& rung : kRungs) {
        plan::SearchInput input = rung_input(family, rung, kind);
        input.profile = cost::load_profile(profile);
        input.cost.flash_attention = flash;
        const LadderCase c = run_case(input, false);
        const double gain = c.megatron_s / c.mist_s;
        (family == kFamilies[0] ? gpt : llama).push_back(gain);
        both.push_back(gain);
        if (rung.devices >= 8) large.push_back(gain);
      }
    }
    double largest = 0;
    for (const double gain : both) largest = std::isfinite(gain) ? std::max(largest, gain) : largest;
    const auto text = [](double gain) { return fmt::format("{:.3f}x", gain); };
    table.cells.push_back({kind, profile, flash ? "yes" : "no", text(geometric_mean(gpt)), text(geometric_mean(llama)),
                           text(geometric_mean(both)), text(geometric_mean(large)), text(largest)});
    table.json.push_back({{"device", kind},
                          {"profile", profile},
                          {"flash_attention", flash},
                          {"gpt", geometric_mean(gpt)},
                          {"llama", geometric_mean(llama)},
                          {"both", geometric_mean(both)},
                          {"of_7b_and_larger", geometric_mean(large)},
                          {"largest", largest}});
  }

  struct PublishedSetting {
    const char* name;
    const char* profile;
    bool artifact;
  };

  void published() {
    BenchTable table =
        make_table("published_plan_22b", "The published plan for GPT-22B on 32 L4 and ours, priced by the same model",
                   {"cost model", "published plan", "ours, Mist's space", "published / ours",
                    "values chosen for the published plan"});
    for (const PublishedSetting& setting : {PublishedSetting{"Gantry, profile l4", "l4", false},
                                            {"Gantry, profile l4-mist", "l4-mist", false},
                                            {"artifact, profile l4-mist", "l4-mist", true}}) {
      published_row(table, setting);
    }
    out_.table(table);
  }

  static void published_row(BenchTable& table, const PublishedSetting& setting) {
    plan::SearchInput input = bench_input("gpt-22b", "l4-4x8", 512, 2048);
    input.profile = cost::load_profile(setting.profile);
    if (setting.artifact) {
      input.cost = cost::CostOptions::artifact();
      input.cluster.host_memory_bytes = 0;  // the artifact does not limit it
    }
    const plan::TrainPlan theirs = published_plan(input);
    const double ours_s = timed_search(input, plan::named_space("mist")).iteration_s;
    base::OrderedJson json{{"cost_model", setting.name}, {"ours_s", ours_s}, {"published_fits", false}};
    if (!theirs.predicted) {
      table.cells.push_back({setting.name, "does not fit", seconds_text(ours_s), "-", "-"});
      table.json.push_back(std::move(json));
      return;
    }
    const double theirs_s = theirs.predicted->iteration_s;
    if (ours_s > theirs_s * (1 + 1e-9)) {
      base::fail("published_plan_22b: the published plan takes {} s, ours {} s ({})", theirs_s, ours_s, setting.name);
    }
    table.cells.push_back({setting.name, fmt::format("{:.6g} s", theirs_s), fmt::format("{:.6g} s", ours_s),
                           fmt::format("{:.4f}", theirs_s / ours_s), chosen(theirs)});
    json["published_fits"] = true;
    json["published_s"] = theirs_s;
    json["ratio"] = theirs_s / ours_s;
    json["chosen"] = chosen(theirs);
    table.json.push_back(std::move(json));
  }

  static std::string chosen(const plan::TrainPlan& plan) {
    std::string zero, optimizer, activations;
    for (const plan::Stage& stage : plan.stages) {
      const char* comma = zero.empty() ? "" : ", ";
      zero += fmt::format("{}{}", comma, stage.policy.zero);
      optimizer += fmt::format("{}{}", comma, stage.policy.optimizer_offload);
      activations += fmt::format("{}{}", comma, stage.policy.activation_offload);
    }
    return fmt::format("ZeRO {}; OO {}; AO {}", zero, optimizer, activations);
  }

  const PlanBenchOptions& options_;
  BenchOutput& out_;
};

}  // namespace

void bench_gains(const PlanBenchOptions& options, BenchOutput& out) { Gains(options, out).run(); }

}  // namespace gantry::cli::planner
