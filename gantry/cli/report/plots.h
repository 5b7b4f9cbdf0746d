#pragma once
// Which plots a page has, made from the records of its runs.
#include <span>
#include <vector>

#include "gantry/cli/report/records.h"
#include "gantry/cli/report/svg_plot.h"

namespace gantry::cli::report {

/// Loss first, then throughput, memory, learning rate and gradient norm; one for which no run has a number is left out.
/// Curves are complete, not thinned.
std::vector<Plot> build_plots(std::span<const RunRecords> runs);

}  // namespace gantry::cli::report
