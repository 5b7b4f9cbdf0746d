#pragma once
// gantry bench plan: the planner's predictions against the published ones, its search times, and what its plans gain
// under its own model (docs/results/plan.md).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::cli::planner {

/// What every suite of `gantry bench` takes.
struct SuiteOptions {
  std::string source = ".";
  std::vector<std::string> row;
  std::int64_t rounds = 5;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("source", source, "source tree, for bench/baselines, the build rows, and ../shared/data beside it");
    visit("row", row, "only these rows (may be given several times)");
    visit("rounds", rounds, "rounds of each measurement; the median counts");
    visit("json", json, "print one JSON object a row");
  }
};

struct PlanBenchOptions : SuiteOptions {
  bool markdown = false;
  bool quick = false;       ///< leaves out what takes minutes
  std::string growth_plot;  ///< file for the plot of search times (SVG, the numbers beside it as CSV); empty: none

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Suite plan");
    visit("markdown", markdown, "print Markdown tables");
    visit("quick", quick, "leave out what takes minutes: 1,024 devices, ablation, growth");
    visit("growth_plot", growth_plot, "SVG file for the plot of search times; their numbers go beside it as CSV");
  }
};

/// Whether a row or table was asked for.
bool wants(const SuiteOptions& options, std::string_view row);

/// Prints all rows and tables. InputError for an unknown row; base::Interrupted after SIGINT.
void bench_plan(const PlanBenchOptions& options);

}  // namespace gantry::cli::planner
