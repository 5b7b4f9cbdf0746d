#pragma once
// A plot as part of the page: title, legend, the drawing in a wide and a narrow form (the style sheet shows one), and
// the numbers that the hover read-out shows.
#include <string>

#include "gantry/cli/report/svg_plot.h"

namespace gantry::cli::report {

enum class FigureWidth { kFull, kHalf };

std::string figure_html(const Plot& plot, FigureWidth width);

}  // namespace gantry::cli::report
