#include "gantry/cli/report/figure.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "gantry/base/json.h"
#include "gantry/cli/report/format.h"

namespace gantry::cli::report {
namespace {

struct Form {
  const char* name;
  PlotSize size;
  std::size_t points;
};

Plot thinned(const Plot& plot, std::size_t points) {
  Plot result = plot;
  for (auto& series : result.series) series.points = downsample(series.points, points);
  return result;
}

/// Six significant digits, as a number; null where there is no value.
base::Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

/// The read-out's data. "<" is written \u003c, so that no text can end the script element that holds it.
std::string hover_data(const Plot& plot) {
  base::Json data = base::Json::array();
  for (const auto& series : plot.series) {
    base::Json xs = base::Json::array(), ys = base::Json::array();
    for (const auto& point : series.points) {
      xs.push_back(point.x);
      ys.push_back(rounded(point.y));
    }
    data.push_back({{"name", series.name},
                    {"class", style_classes(series.style.run)},
                    {"x", std::move(xs)},
                    {"y", std::move(ys)}});
  }
  const std::string text = data.dump(-1, ' ', false, base::Json::error_handler_t::replace);
  std::string out;
  for (const char character : text) out += character == '<' ? std::string("\\u003c") : std::string(1, character);
  return out;
}

std::string legend_html(const Plot& plot) {
  if (plot.legend.empty()) return "";
  std::string out = R"(<ul class="legend">)";
  for (const auto& entry : plot.legend) {
    out += fmt::format("<li>{}{}</li>", svg_legend_sample(entry.style), escape_html(entry.text));
  }
  return out + "</ul>";
}

}  // namespace

std::string figure_html(const Plot& plot, FigureWidth width) {
  const bool full = width == FigureWidth::kFull;
  const Form wide{"wide", full ? PlotSize{1080, 360} : PlotSize{528, 250}, 1000};
  const Form narrow{"narrow", full ? PlotSize{380, 290} : PlotSize{380, 230}, 400};
  std::string out = fmt::format(R"(<figure class="plot {}"><figcaption><h2>{}</h2>)", full ? "full" : "half",
                                escape_html(plot.title));
  if (!plot.note.empty()) out += fmt::format("<span>{}</span>", escape_html(plot.note));
  out += legend_html(plot) + "</figcaption>";
  for (const Form& form : {wide, narrow}) {
    out += fmt::format(R"(<div class="{}">{}</div>)", form.name, svg_line_plot(thinned(plot, form.points), form.size));
  }
  return out +
         fmt::format(R"(<script type="application/json">{}</script></figure>)",
                     hover_data(thinned(plot, wide.points))) +
         "\n";
}

}  // namespace gantry::cli::report
