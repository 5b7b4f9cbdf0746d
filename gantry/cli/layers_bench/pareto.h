#pragma once
// Memory against speed at one batch: Gantry's modes against PyTorch's own options.
#include <filesystem>
#include <string>
#include <vector>

#include "gantry/cli/layers_bench/step_arms.h"

namespace gantry::cli::layers_bench {

/// Results with and without dropout, as two panels of one SVG document; lines run along the Pareto fronts.
std::string pareto_svg(const std::vector<StepResult>& results);
/// arm, dropout, batch, growth_bytes, samples_per_s
std::string pareto_csv(const std::vector<StepResult>& results);

/// Measures, prints the table and, where --plot is given, writes both files.
void pareto_row(const Bench& bench);

}  // namespace gantry::cli::layers_bench
