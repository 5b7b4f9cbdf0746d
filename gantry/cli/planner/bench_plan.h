#pragma once
// gantry bench plan: the planner's predictions against the published ones, its search times, and what its plans gain
// under its own model (docs/results/plan.md).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::cli::planner {

struct PlanBenchOptions {
  std::string source = ".";      ///< source tree, for ../shared/data beside it
  std::vector<std::string> row;  ///< only these rows and tables; empty: all
  std::int64_t rounds = 3;       ///< of each timed search; the median counts
  bool json = false;             ///< one JSON object a row or line of a table
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
bool wants(const PlanBenchOptions& options, std::string_view row);

/// Prints all rows and tables. InputError for an unknown row; base::Interrupted after SIGINT.
void bench_plan(const PlanBenchOptions& options);

}  // namespace gantry::cli::planner
