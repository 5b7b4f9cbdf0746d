#include "gantry/cli/layers_bench/pareto.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

#include "gantry/base/file.h"
#include "gantry/cli/report/panel.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr int kPanelWidth = 520;
constexpr int kPanelHeight = 380;
constexpr int kTop = 54, kMargin = 12;
constexpr std::int64_t kSequenceLength = 512, kBatch = 4;
constexpr double kLetterWidth = 6.2, kLineHeight = 12, kGap = 7;  // of names, pixels

constexpr const char* kStyle = R"(<style>
svg { font: 12px system-ui, sans-serif; }
.page { fill: #fff; } .ink, text { fill: #1c2733; } .tick { fill: #55606c; font-size: 11px; }
.head { font-size: 13px; font-weight: 600; } .name { font-size: 11px; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.grid { stroke: #e3e7eb; } .axis { stroke: #9aa3ae; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.marker { fill: currentColor; stroke: #fff; stroke-width: 1.5; }
.c0 { color: #0b6fb3; } .c1 { color: #cf5500; }
@media (prefers-color-scheme: dark) {
  .page { fill: #1a2027; } .ink, text { fill: #e6eaee; } .tick { fill: #a9b3bd; }
  .grid { stroke: #303943; } .axis { stroke: #66717d; } .marker, .name { stroke: #1a2027; }
  .c0 { color: #5ab2ee; } .c1 { color: #ff9350; }
}
</style>)";

std::vector<StepArm> pareto_arms(const Bench& bench) {
  std::vector<StepArm> arms;
  for (const char* mode : {"store", "in-place", "recompute", "rerun-mlp", "rerun-attention", "rerun", "int8"}) {
    arms.push_back({.gantry = true, .arm = mode});
  }
  for (const char* arm : {"eager", "eager-byte-masks", "checkpoint-attention", "checkpoint-layer"}) {
    arms.push_back({.arm = arm});
  }
  for (const char* mode : {"in-place", "recompute", "rerun-attention", "rerun"}) {
    arms.push_back({.gantry = true, .arm = mode, .dropout = 0});
  }
  for (const char* arm : {"eager", "sdpa", "checkpoint-layer"}) arms.push_back({.arm = arm, .dropout = 0});
  if (bench.options.no_compile) return arms;
  for (const char* arm : {"compile", "compile-0.2", "compile-sdpa", "compile-sdpa-0.5"}) {
    arms.push_back({.arm = arm, .dropout = 0});
  }
  return arms;
}

report::Point point_of(const StepResult& result) {
  return {static_cast<double>(result.growth_bytes) / kMib, result.speed()};
}

// The points, by memory, that no other beats in both memory and speed.
std::vector<report::Point> front_of(const std::vector<report::Point>& by_memory) {
  std::vector<report::Point> front;
  for (const report::Point& point : by_memory) {
    if (front.empty() || point.y > front.back().y) front.push_back(point);
  }
  return front;
}

report::Plot plot_of(const std::vector<const StepResult*>& results, bool dropout) {
  report::Plot plot{dropout ? "Dropout 0.1" : "No dropout", "", "peak growth of a step, MiB", "samples/s",
                    report::Scale::kFit};
  plot.x_logarithmic = true;
  std::vector<report::Point> points[2];
  for (const StepResult* result : results) points[result->arm.gantry ? 0 : 1].push_back(point_of(*result));
  const char* names[] = {"Gantry", "PyTorch"};
  for (int i = 0; i < 2; ++i) {
    std::ranges::sort(points[i], {}, &report::Point::x);
    const auto marker = i == 0 ? report::Marker::kCircle : report::Marker::kSquare;
    plot.series.push_back({names[i], {i, report::Line::kSolid, report::Marker::kNone}, front_of(points[i])});
    plot.series.push_back({"", {i, report::Line::kNone, marker}, points[i]});
  }
  return plot;
}

/// Where a name stands: pixels, baseline at y.
struct Label {
  double left = 0, right = 0, y = 0;
  bool overlaps(const Label& other) const {
    return left < other.right && other.left < right && std::abs(y - other.y) < kLineHeight;
  }
};

// The name of each arm beside its marker: right of it, left where the panel ends, further down where another stands.
std::string names(const std::string& drawing, const report::PlotAxes& axes, std::vector<const StepResult*> results) {
  // From the fastest down, so that names which make room for each other keep their order.
  std::ranges::sort(results, std::greater{}, &StepResult::speed);
  double left = 0, right = 0, top = 0, bottom = 0;
  const auto frame = drawing.find("data-frame=\"");
  if (frame == std::string::npos ||
      std::sscanf(drawing.c_str() + frame, "data-frame=\"%lf %lf %lf %lf", &left, &right, &top, &bottom) != 4) {
    base::fail("the plot's frame is not where the names expect it");
  }
  const auto place = [&](const StepResult& result) {
    const report::Point point = point_of(result);
    return report::Point{left + axes.x.position(point.x) * (right - left),
                         bottom - axes.y.position(point.y) * (bottom - top)};
  };
  std::string text;
  std::vector<Label> placed;
  for (const StepResult* result : results) {
    const auto [x, y] = place(*result);
    placed.push_back({x - kGap / 2, x + kGap / 2, y + kGap / 2});  // the marker
  }
  for (const StepResult* result : results) {
    const auto [x, y] = place(*result);
    const double width = kLetterWidth * static_cast<double>(result->arm.arm.size());
    const double start = x + kGap + width > right ? x - kGap - width : x + kGap;
    Label label{start, start + width, result->arm.gantry ? y - kGap : y + 2 * kGap};
    while (std::ranges::any_of(placed, [&](const Label& other) { return label.overlaps(other); })) label.y += 2;
    placed.push_back(label);
    text += fmt::format(R"(<text class="name" x="{:.1f}" y="{:.1f}">{}</text>)", label.left, label.y, result->arm.arm);
  }
  return text;
}

std::string panel(const std::vector<StepResult>& all, bool dropout) {
  std::vector<const StepResult*> results;
  for (const StepResult& result : all) {
    if (result.missing.empty() && (result.arm.dropout > 0) == dropout) results.push_back(&result);
  }
  const report::Plot plot = plot_of(results, dropout);
  const report::PlotSize size{kPanelWidth, kPanelHeight};
  std::string drawing = report::svg_line_plot(plot, size);
  drawing.insert(drawing.rfind("</svg>"), names(drawing, report::plot_axes(plot, size), results));
  const int x = dropout ? 0 : kPanelWidth;
  drawing.insert(4, fmt::format(R"( x="{}" y="{}" width="{}" height="{}" overflow="visible")", x, kTop, kPanelWidth,
                                kPanelHeight));
  return report::svg_panel_head(plot, x).svg + drawing;
}

}  // namespace

std::string pareto_svg(const std::vector<StepResult>& results) {
  return fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}">)"
                     R"({2}<rect class="page" width="{0}" height="{1}"/>{3}{4}</svg>)",
                     2 * kPanelWidth + kMargin, kTop + kPanelHeight, kStyle, panel(results, true),
                     panel(results, false)) +
         "\n";
}

std::string pareto_csv(const std::vector<StepResult>& results) {
  std::string text = "arm,dropout,batch,growth_bytes,samples_per_s\n";
  for (const StepResult& result : results) {
    if (!result.missing.empty()) continue;
    text += fmt::format("{} {},{:g},{},{},{:.4f}\n", result.arm.gantry ? "Gantry" : "PyTorch", result.arm.arm,
                        result.arm.dropout, result.batch, result.growth_bytes, result.speed());
  }
  return text;
}

void pareto_row(const Bench& bench) {
  // Minutes long, so only where it was asked for.
  if (bench.options.plot.empty() && (bench.suite.row.empty() || !bench.wants("pareto"))) return;
  const StepCase settings{
      .family = "bert", .sequence_length = kSequenceLength, .budget_bytes = 1, .batch = kBatch, .timed_batch = kBatch};
  const auto results = measure_steps(bench, settings, pareto_arms(bench), true);
  bench.out.table(step_table(
      "pareto",
      fmt::format("{} layers of BERT-large, S={}, batch {}: memory and speed", kStepLayers, kSequenceLength, kBatch),
      results));
  if (bench.options.plot.empty()) return;
  std::filesystem::path path = bench.options.plot;
  base::write_file_atomically(path, pareto_svg(results));
  base::write_file_atomically(path.replace_extension(".csv"), pareto_csv(results));
}

}  // namespace gantry::cli::layers_bench
