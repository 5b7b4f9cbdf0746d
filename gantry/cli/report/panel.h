#pragma once
// What drawings of several plots side by side share.
#include <string>

#include "gantry/cli/report/svg_plot.h"

namespace gantry::cli::report {

struct PanelHead {
  std::string svg;  ///< title at y = 22, the names of the curves at y = 42
  double end;       ///< x behind the last name
};

/// The two lines above a plot whose panel begins at x.
PanelHead svg_panel_head(const Plot& plot, int x);

}  // namespace gantry::cli::report
