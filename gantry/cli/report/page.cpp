#include "gantry/cli/report/page.h"

#include "gantry/cli/report/figure.h"
#include "gantry/cli/report/format.h"
#include "gantry/cli/report/page_parts.h"
#include "gantry/cli/report/plots.h"
#include "gantry/cli/report/templates.h"

namespace gantry::cli::report {
namespace {

std::string body_html(std::span<const RunRecords> runs) {
  std::string out;
  if (runs.size() == 1) {
    out += facts_html(runs[0]) + notices_html(runs) + tiles_html(runs[0]);
  } else {
    out += notices_html(runs) + comparison_html(runs);
  }
  out += "<div class=\"plots\">\n";
  for (const auto& plot : build_plots(runs)) {
    out += figure_html(plot, plot.title == "Loss" ? FigureWidth::kFull : FigureWidth::kHalf);
  }
  out += "</div>\n";
  out += evals_html(runs) + options_html(runs);
  if (runs.size() > 1) {
    for (const auto& run : runs)
      out += "<section><h2>" + escape_html(run.name) + "</h2>" + facts_html(run) + "</section>\n";
  }
  return out;
}

}  // namespace

std::string page_html(std::span<const RunRecords> runs) {
  const std::string title = escape_html(page_title(runs));
  return fill_template(web::kReportHtml, [&](std::string_view name) -> std::string {
    if (name == "title") return title;
    if (name == "kind") return runs.size() == 1 ? "Training run" : "Training runs";
    if (name == "style") return std::string(web::kReportCss);
    if (name == "script") return std::string(web::kReportJs);
    if (name == "body") return body_html(runs);
    return "";
  });
}

}  // namespace gantry::cli::report
