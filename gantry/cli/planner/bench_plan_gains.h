#pragma once
// What the knobs are worth, all under Gantry's own model: rows and tables of `gantry bench plan`.
#include "gantry/cli/planner/bench_output.h"
#include "gantry/cli/planner/bench_plan.h"

namespace gantry::cli::planner {

/// Speed-ups over the Megatron space, the ablation, and the published plan for GPT-22B.
void bench_gains(const PlanBenchOptions& options, BenchOutput& out);

}  // namespace gantry::cli::planner
