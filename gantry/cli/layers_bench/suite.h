#pragma once
// gantry bench layers: the memory-saving operators and layers beside eager PyTorch, its checkpointing and torch.compile
// (docs/results/layers.md).
#include <cstdint>
#include <string>

#include "gantry/cli/planner/bench_output.h"
#include "gantry/cli/planner/bench_plan.h"

namespace gantry::cli::layers_bench {

inline constexpr double kMib = 1 << 20;

struct LayersBenchOptions {
  std::string plot;         ///< file for the plot of memory against speed; empty: none
  double budget_gib = 0;    ///< of every max_batch and budget_throughput row; 0: each row's own
  bool no_compile = false;  ///< leaves out the arms of torch.compile, which need a C++ compiler and minutes
  std::string worker;       ///< settings of a measurement server as JSON (step_worker.h)

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Suite layers");
    visit("plot", plot, "SVG file for the plot of memory against speed; its numbers go beside it as CSV");
    visit("budget_gib", budget_gib, "memory budget of the largest-batch and throughput rows, GiB; 0: each row's own");
    visit("no_compile", no_compile, "leave out torch.compile, which takes minutes to compile");
    visit("worker", worker, "internal: serve the training steps that this JSON object describes");
  }
};

/// What every row needs.
struct Bench {
  const planner::SuiteOptions& suite;
  const LayersBenchOptions& options;
  std::string python;    ///< interpreter of the baselines
  std::int64_t threads;  ///< of every side
  planner::BenchOutput& out;

  bool wants(std::string_view row) const { return planner::wants(suite, row); }
  /// bench/baselines/NAME
  std::string script(const std::string& name) const;
};

/// Prints the rows. InputError for an unknown row; base::Interrupted after SIGINT.
void bench_layers(const Bench& bench);

}  // namespace gantry::cli::layers_bench
