#include "gantry/cli/report/panel.h"

#include <fmt/format.h>

namespace gantry::cli::report {

PanelHead svg_panel_head(const Plot& plot, int x) {
  PanelHead head{fmt::format(R"(<text class="head" x="{}" y="22">{}</text>)", x + 6, plot.title), x + 6.0};
  for (const Series& series : plot.series) {
    if (series.name.empty()) continue;
    head.svg += fmt::format(R"(<path class="line {0}" d="M{1} 38h18"/><text x="{2}" y="42">{3}</text>)",
                            style_classes(series.style.run), head.end, head.end + 23, series.name);
    head.end += 30 + 7.5 * static_cast<double>(series.name.size());
  }
  return head;
}

}  // namespace gantry::cli::report
