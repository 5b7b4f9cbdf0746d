#include "gantry/cli/report/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "gantry/cli/report/format.h"

namespace gantry::cli::report {
namespace {

constexpr double kLogRatio = 20;       // a curve whose peak is this many times its median gets a logarithmic axis
constexpr double kOutlierRatio = 1.5;  // single steps that reach this many times as high as the rest are cut off

using Field = double StepRecord::*;

std::vector<Point> curve(const RunRecords& run, Field field, double unit = 1) {
  std::vector<Point> points;
  for (const auto& record : run.steps) points.push_back({static_cast<double>(record.step), record.*field / unit});
  return points;
}

bool has_value(const std::vector<Point>& points) {
  return std::any_of(points.begin(), points.end(), [](const Point& point) { return std::isfinite(point.y); });
}

bool is_faint(const Series& series) { return series.style.line == Line::kFaint; }

/// The finite values of the curves that stand for their runs, or of the faint ones behind them.
std::vector<double> values_of(const Plot& plot, bool faint) {
  std::vector<double> values;
  for (const auto& series : plot.series) {
    if (is_faint(series) != faint) continue;
    for (const auto& point : series.points) {
      if (std::isfinite(point.y)) values.push_back(point.y);
    }
  }
  return values;
}

bool wants_logarithm(const Plot& plot) {
  const auto values = values_of(plot, false);
  if (values.size() < 8) return false;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return *low > 0 && *high > kLogRatio * quantile(values, 0.5);
}

/// Keeps a few outliers of single steps from flattening everything else: they leave through the top of the plot, with
/// an arrow, and the note says how high they go.
void cap_outliers(Plot& plot) {
  const auto faint = values_of(plot, true);
  const auto main = values_of(plot, false);
  if (faint.empty() || main.empty()) return;
  const double low = std::min(quantile(faint, 0), quantile(main, 0));
  const double cap = std::max(quantile(main, 1), quantile(faint, 0.995));
  const double peak = quantile(faint, 1);
  if (!(peak - low > kOutlierRatio * (cap - low))) return;
  plot.y_cap = cap;
  plot.note = fmt::format("▲ single steps above the axis, up to {}", format_number(peak));
}

/// Says what the marks mean, behind what the note says already.
void explain_marks(Plot& plot) {
  const auto explain = [&](Mark::Kind kind, const char* text) {
    const auto same = [&](const Mark& mark) { return mark.kind == kind; };
    if (std::none_of(plot.marks.begin(), plot.marks.end(), same)) return;
    plot.note += fmt::format("{}{}", plot.note.empty() ? "" : " · ", text);
  };
  explain(Mark::Kind::kNotFinite, "× loss that is not finite");
  explain(Mark::Kind::kResumed, "┊ resumed");
}

void add_legend(Plot& plot, const std::string& text, Style style) {
  const auto same = [&](const LegendEntry& entry) { return entry.text == text; };
  if (std::none_of(plot.legend.begin(), plot.legend.end(), same)) plot.legend.push_back({text, style});
}

std::string name_in(std::span<const RunRecords> runs, const RunRecords& run, const std::string& what) {
  return runs.size() == 1 ? what : fmt::format("{} · {}", what, run.name);
}

/// A faint curve of every step under a smoothed one; short curves stay as they are.
void add_smoothed(Plot& plot, std::span<const RunRecords> runs, int index, Field field, const std::string& what) {
  const RunRecords& run = runs[static_cast<std::size_t>(index)];
  auto points = curve(run, field);
  if (!has_value(points)) return;
  const double window = smoothing_window(points.size());
  if (window > 1) {
    auto smoothed = smooth(points, window);
    plot.series.push_back({name_in(runs, run, "each step"), {index, Line::kFaint}, std::move(points)});
    plot.series.push_back({name_in(runs, run, what + ", smoothed"), {index}, std::move(smoothed)});
  } else {
    plot.series.push_back({name_in(runs, run, what), {index}, std::move(points)});
  }
}

/// Entries for line kinds, in the run's colour for one run, in the text's for several, where colours mean runs.
void describe_lines(Plot& plot, std::span<const RunRecords> runs, const std::string& what) {
  if (runs.size() > 1) {
    for (std::size_t index = 0; index < runs.size(); ++index)
      add_legend(plot, runs[index].name, {static_cast<int>(index)});
  }
  const int color = runs.size() == 1 ? 0 : -1;
  for (const auto& series : plot.series) {
    if (is_faint(series)) {
      add_legend(plot, "each step", {color, Line::kFaint});
      if (runs.size() == 1) add_legend(plot, what + ", smoothed", {color});
    }
  }
}

void add_evals(Plot& plot, std::span<const RunRecords> runs, int index, std::map<std::string, Marker>& markers) {
  constexpr Marker kMarkers[] = {Marker::kCircle, Marker::kSquare, Marker::kDiamond};
  const RunRecords& run = runs[static_cast<std::size_t>(index)];
  std::map<std::string, std::vector<Point>> splits;
  for (const auto& record : run.evals) splits[record.split].push_back({static_cast<double>(record.step), record.loss});
  for (auto& [split, points] : splits) {
    if (!has_value(points)) continue;
    const Marker marker = markers.try_emplace(split, kMarkers[markers.size() % 3]).first->second;
    const int color = runs.size() == 1 ? 1 : index;
    plot.series.push_back({name_in(runs, run, split), {color, Line::kDotted, marker}, std::move(points)});
  }
}

void add_marks(Plot& plot, std::span<const RunRecords> runs, bool losses) {
  for (std::size_t index = 0; index < runs.size(); ++index) {
    for (const auto step : runs[index].resumed_at) {
      plot.marks.push_back({static_cast<double>(step), Mark::Kind::kResumed, static_cast<int>(index)});
    }
    if (!losses) continue;
    for (const auto& record : runs[index].steps) {
      if (record.diverged) plot.marks.push_back({static_cast<double>(record.step), Mark::Kind::kNotFinite, 0});
    }
  }
}

Plot loss_plot(std::span<const RunRecords> runs) {
  Plot plot{.title = "Loss", .note = {}, .x_label = "step", .y_label = "loss (nats a token)"};
  std::map<std::string, Marker> markers;
  for (int index = 0; index < static_cast<int>(runs.size()); ++index) {
    add_smoothed(plot, runs, index, &StepRecord::loss, "training");
  }
  for (int index = 0; index < static_cast<int>(runs.size()); ++index) add_evals(plot, runs, index, markers);
  if (plot.series.empty()) return plot;
  describe_lines(plot, runs, "training");
  if (plot.legend.empty() && !runs[0].steps.empty()) add_legend(plot, "training", {0});
  for (const auto& [split, marker] : markers) {
    add_legend(plot, split, {runs.size() == 1 ? 1 : -1, Line::kDotted, marker});
  }
  if (wants_logarithm(plot)) plot.scale = Scale::kLogarithmic;
  cap_outliers(plot);
  add_marks(plot, runs, true);
  explain_marks(plot);
  return plot;
}

Plot field_plot(std::span<const RunRecords> runs, Field field, Plot plot, double unit = 1) {
  for (std::size_t index = 0; index < runs.size(); ++index) {
    auto points = curve(runs[index], field, unit);
    const auto name = runs.size() == 1 ? plot.title : runs[index].name;
    if (has_value(points)) plot.series.push_back({name, {static_cast<int>(index)}, std::move(points)});
  }
  add_marks(plot, runs, false);
  return plot;
}

Plot smoothed_plot(std::span<const RunRecords> runs, Field field, Plot plot, const std::string& what) {
  for (int index = 0; index < static_cast<int>(runs.size()); ++index) add_smoothed(plot, runs, index, field, what);
  describe_lines(plot, runs, what);
  if (runs.size() > 1) plot.legend.clear();  // the loss plot's legend names the runs
  if (wants_logarithm(plot)) plot.scale = Scale::kLogarithmic;
  cap_outliers(plot);
  add_marks(plot, runs, false);
  return plot;
}

Plot memory_plot(std::span<const RunRecords> runs) {
  double peak = 0;
  for (const auto& run : runs) {
    for (const auto& record : run.steps)
      peak = std::isfinite(record.memory_bytes) ? std::max(peak, record.memory_bytes) : peak;
  }
  double unit = 1;
  std::string name = "B";
  for (const auto* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (peak < 1000 * unit) break;
    unit *= 1024;
    name = larger;
  }
  return field_plot(runs, &StepRecord::memory_bytes,
                    {.title = "Memory", .note = {}, .x_label = "step", .y_label = name, .scale = Scale::kFromZero},
                    unit);
}

}  // namespace

std::vector<Plot> build_plots(std::span<const RunRecords> runs) {
  const auto plain = [](const char* title, const char* unit) {
    return Plot{.title = title, .note = {}, .x_label = "step", .y_label = unit, .scale = Scale::kFromZero};
  };
  std::vector<Plot> plots;
  plots.push_back(loss_plot(runs));
  plots.push_back(smoothed_plot(runs, &StepRecord::tokens_per_s, plain("Throughput", "tokens/s"), "throughput"));
  plots.push_back(memory_plot(runs));
  plots.push_back(field_plot(runs, &StepRecord::learning_rate, plain("Learning rate", "learning rate")));
  plots.push_back(
      smoothed_plot(runs, &StepRecord::grad_norm, plain("Gradient norm", "L2 norm, before clipping"), "norm"));
  std::erase_if(plots, [](const Plot& plot) { return plot.series.empty(); });
  return plots;
}

}  // namespace gantry::cli::report
