#include "gantry/cli/planner/bench_plan_growth.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/file.h"
#include "gantry/cli/planner/bench_plan_ladder.h"
#include "gantry/cli/report/panel.h"

namespace gantry::cli::planner {
namespace {

constexpr int kPanelWidth = 400;
constexpr int kPanelHeight = 300;
constexpr int kTop = 54;
constexpr const char* kSpaces[] = {"mist", "full"};

constexpr const char* kStyle = R"(<style>
svg { font: 12px system-ui, sans-serif; }
.page { fill: #fff; } .ink, text { fill: #1c2733; } .tick { fill: #55606c; font-size: 11px; }
.head { font-size: 13px; font-weight: 600; }
.grid { stroke: #e3e7eb; } .axis { stroke: #9aa3ae; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.marker { fill: currentColor; stroke: #fff; stroke-width: 1.5; }
.c0 { color: #0b6fb3; } .c1 { color: #cf5500; } .c2 { color: #00876a; }
@media (prefers-color-scheme: dark) {
  .page { fill: #1a2027; } .ink, text { fill: #e6eaee; } .tick { fill: #a9b3bd; }
  .grid { stroke: #303943; } .axis { stroke: #66717d; } .marker { stroke: #1a2027; }
  .c0 { color: #5ab2ee; } .c1 { color: #ff9350; } .c2 { color: #35c9a2; }
}
</style>)";

void measure(std::vector<GrowthPoint>& points, const char* axis, double x, const plan::SearchInput& input,
             const plan::SearchSpace& space) {
  const TimedSearch timed = timed_search(input, space);
  points.push_back({axis, space.name, x, timed.cpu_s, timed.iteration_s});
}

report::Series series(const std::vector<GrowthPoint>& points, std::string_view axis, std::string_view space, int run) {
  report::Series curve{std::string(space), {run, report::Line::kSolid, report::Marker::kCircle}, {}};
  for (const GrowthPoint& point : points) {
    if (point.axis == axis && (space.empty() || point.space == space)) curve.points.push_back({point.x, point.cpu_s});
  }
  return curve;
}

// A panel at column `column` with its heading; the drawing keeps its own coordinates.
std::string panel(const report::Plot& plot, int column) {
  const int x = column * kPanelWidth;
  std::string drawing = report::svg_line_plot(plot, {kPanelWidth, kPanelHeight});
  drawing.insert(4, fmt::format(R"( x="{}" y="{}" width="{}" height="{}")", x, kTop, kPanelWidth, kPanelHeight));
  report::PanelHead head = report::svg_panel_head(plot, x);
  if (!plot.note.empty()) head.svg += fmt::format(R"(<text class="tick" x="{}" y="42">{}</text>)", head.end, plot.note);
  return head.svg + drawing;
}

}  // namespace

std::vector<GrowthPoint> measure_growth() {
  std::vector<GrowthPoint> points;
  for (const int layers : {24, 48, 96, 192}) {
    const plan::SearchInput input = bench_input("gpt-22b", "l4-4x8", 512, 2048, layers);
    for (const char* space : kSpaces) measure(points, "layers", layers, input, plan::named_space(space));
  }
  for (const int devices : {8, 16, 32, 64, 128, 256, 512, 1024}) {
    const plan::SearchInput input =
        bench_input("gpt-22b", cluster_name("l4", devices), std::max(512, 4 * devices), 2048);
    for (const char* space : kSpaces) measure(points, "devices", devices, input, plan::named_space(space));
  }
  const plan::SearchInput input = bench_input("gpt-22b", "l4-4x8", 512, 2048);
  int step = 0;
  for (const plan::SearchSpace& space : plan::ablation_spaces()) measure(points, "knobs", ++step, input, space);
  return points;
}

std::string growth_svg(const std::vector<GrowthPoint>& points) {
  const char* seconds = "search, CPU seconds";
  report::Plot layers{"Layers (32 L4, batch 512)", "", "layers", seconds, report::Scale::kLogarithmic};
  report::Plot devices{"Devices (48 layers)", "", "devices", seconds, report::Scale::kLogarithmic};
  devices.x_logarithmic = true;
  report::Plot knobs{"Knobs (48 layers, 32 L4)", "1 parallelism only … 9 full", "step of the ablation", seconds,
                     report::Scale::kLogarithmic};
  for (int i = 0; i < 2; ++i) {
    layers.series.push_back(series(points, "layers", kSpaces[i], i));
    devices.series.push_back(series(points, "devices", kSpaces[i], i));
  }
  knobs.series.push_back(series(points, "knobs", "", 2));
  return fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}">)"
                     R"({2}<rect class="page" width="{0}" height="{1}"/>{3}{4}{5}</svg>)",
                     3 * kPanelWidth, kTop + kPanelHeight, kStyle, panel(layers, 0), panel(devices, 1),
                     panel(knobs, 2)) +
         "\n";
}

std::string growth_csv(const std::vector<GrowthPoint>& points) {
  std::string text = "axis,space,x,search_cpu_s,iteration_s\n";
  for (const GrowthPoint& point : points) {
    text += fmt::format("{},{},{},{:.4f},{}\n", point.axis, point.space, point.x, point.cpu_s,
                        std::isfinite(point.iteration_s) ? fmt::format("{:.6g}", point.iteration_s) : "");
  }
  return text;
}

void write_growth(const std::vector<GrowthPoint>& points, const std::filesystem::path& svg) {
  base::write_file_atomically(svg, growth_svg(points));
  std::filesystem::path csv = svg;
  base::write_file_atomically(csv.replace_extension(".csv"), growth_csv(points));
}

}  // namespace gantry::cli::planner
