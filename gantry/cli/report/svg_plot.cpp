#include "gantry/cli/report/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>

#include "gantry/cli/report/format.h"

namespace gantry::cli::report {
namespace {

constexpr int kColors = 6;
constexpr int kDashes = 3;

/// Where the plot area lies inside the drawing.
struct Frame {
  double left = 0, right = 0, top = 0, bottom = 0;
  const PlotAxes* axes = nullptr;

  double x(double value) const { return left + axes->x.position(value) * (right - left); }
  double y(double value) const { return bottom - std::min(axes->y.position(value), 1.0) * (bottom - top); }
};

struct Extent {
  double low = INFINITY;
  double high = -INFINITY;
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, std::clamp(value, -kLargestValue, kLargestValue));
    high = std::max(high, std::clamp(value, -kLargestValue, kLargestValue));
  }
  bool empty() const { return low > high; }
};

Frame make_frame(const PlotAxes& axes, const std::vector<std::string>& y_labels, PlotSize size) {
  std::size_t longest = 1;
  for (const auto& label : y_labels) longest = std::max(longest, label.size());
  Frame frame;
  frame.left = 14 + 6.8 * static_cast<double>(longest);
  frame.right = size.width - 14;
  frame.top = 30;
  frame.bottom = size.height - 40;
  frame.axes = &axes;
  return frame;
}

/// The read-out finds in data-frame the edges of the plot area, in data-axes the values there.
std::string svg_opening(const Plot& plot, PlotSize size, const Frame& frame) {
  const auto& [x, y] = *frame.axes;
  return fmt::format(R"(<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {} over {}" )"
                     R"(data-frame="{:.1f} {:.1f} {:.1f} {:.1f}" data-axes="{} {} {} {} {}">)",
                     size.width, size.height, escape_html(plot.title), escape_html(plot.y_label),
                     escape_html(plot.x_label), frame.left, frame.right, frame.top, frame.bottom, x.low, x.high, y.low,
                     y.high, y.logarithmic ? "log" : "linear");
}

void draw_y_axis(std::string& out, const Frame& frame, const std::vector<std::string>& labels) {
  for (std::size_t index = 0; index < labels.size(); ++index) {
    const double y = frame.y(frame.axes->y.ticks[index]);
    out += fmt::format(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", frame.left,
                       frame.right, y, y);
    out += fmt::format(R"(<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)", frame.left - 7, y + 4,
                       labels[index]);
  }
}

void draw_x_axis(std::string& out, const Frame& frame) {
  const auto labels = tick_labels(frame.axes->x);
  out += fmt::format(R"(<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", frame.left, frame.right,
                     frame.bottom, frame.bottom);
  for (std::size_t index = 0; index < labels.size(); ++index) {
    const double x = frame.x(frame.axes->x.ticks[index]);
    out += fmt::format(R"(<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", x, x, frame.bottom,
                       frame.bottom + 4);
    out += fmt::format(R"(<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)", x,
                       frame.bottom + 17, labels[index]);
  }
}

void draw_marker(std::string& out, Marker marker, double x, double y) {
  switch (marker) {
    case Marker::kNone: break;
    case Marker::kCircle: out += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="4"/>)", x, y); break;
    case Marker::kSquare:
      out += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="7" height="7"/>)", x - 3.5, y - 3.5);
      break;
    case Marker::kDiamond: out += fmt::format(R"(<path d="M{:.1f} {:.1f}l5 5l-5 5l-5 -5z"/>)", x, y - 5); break;
  }
}

const char* line_class(Line line) {
  switch (line) {
    case Line::kNone: return "";
    case Line::kSolid: return "line";
    case Line::kFaint: return "line faint";
    case Line::kDotted: return "line dotted";
  }
  return "";
}

void draw_series(std::string& out, const Series& series, const Frame& frame) {
  std::string path, markers, arrows;
  double arrow = -INFINITY;
  bool drawing = false;
  for (const auto& point : series.points) {
    const double y = frame.y(point.y);
    if (!std::isfinite(point.y) || !std::isfinite(y)) {
      if (drawing) path += "h0";  // a lone point gets its dot from the round line end
      drawing = false;
      continue;
    }
    const double x = frame.x(point.x);
    path += fmt::format("{}{:.1f} {:.1f}", drawing ? "L" : "M", x, y);
    drawing = true;
    if (frame.axes->y.position(point.y) > 1 && x > arrow + 4) {
      arrow = x;
      arrows += fmt::format("M{:.1f} {:.1f}l4.5 -7l4.5 7z", x - 4.5, frame.top - 1);
    }
    draw_marker(markers, series.style.marker, x, y);
  }
  if (path.empty()) return;
  const auto classes = style_classes(series.style.run);
  if (series.style.line != Line::kNone) {
    out += fmt::format(R"(<path class="{} {}" d="{}{}"/>)", line_class(series.style.line), classes, path,
                       drawing ? "h0" : "");
  }
  if (!arrows.empty()) out += fmt::format(R"(<path class="above {}" d="{}"/>)", classes, arrows);
  if (!markers.empty()) out += fmt::format(R"(<g class="marker {}">{}</g>)", classes, markers);
}

void draw_marks(std::string& out, const Plot& plot, const Frame& frame) {
  std::set<std::pair<int, int>> drawn;  // marks of a kind closer than four pixels are one
  for (const auto& mark : plot.marks) {
    const double x = frame.x(mark.x);
    if (!drawn.insert({static_cast<int>(mark.kind), static_cast<int>(x / 4)}).second) continue;
    if (mark.kind == Mark::Kind::kResumed) {
      out += fmt::format(R"(<line class="resumed {}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)",
                         style_classes(mark.run), x, x, frame.top, frame.bottom);
    } else {
      out += fmt::format(R"(<path class="diverged" d="M{:.1f} {:.1f}l7 7m0 -7l-7 7"/>)", x - 3.5, frame.top + 3);
    }
  }
}

}  // namespace

std::string style_classes(int run) {
  if (run < 0) return "ink";
  const int dash = run / kColors % kDashes;
  return dash == 0 ? fmt::format("c{}", run % kColors) : fmt::format("c{} d{}", run % kColors, dash);
}

PlotAxes plot_axes(const Plot& plot, PlotSize size) {
  Extent x, y;
  bool positive = true;
  for (const auto& series : plot.series) {
    for (const auto& point : series.points) {
      x.add(point.x);
      if (point.y <= plot.y_cap) y.add(point.y);
      if (std::isfinite(point.y) && point.y <= 0) positive = false;
    }
  }
  for (const auto& mark : plot.marks) x.add(mark.x);
  const int y_ticks = std::max(3, size.height / 55);
  PlotAxes axes;
  const int x_ticks = std::max(2, size.width / 95);
  if (plot.x_logarithmic && x.low > 0 && !x.empty()) {
    axes.x = log_axis(x.low, x.high, x_ticks);
  } else {
    axes.x = x.empty() ? step_axis(0, 1, 1) : step_axis(x.low, x.high, x_ticks);
  }
  if (y.empty()) {
    axes.y = linear_axis(0, 1, y_ticks);
  } else if (plot.scale == Scale::kLogarithmic && positive) {
    axes.y = log_axis(y.low, y.high, y_ticks);
  } else if (plot.scale == Scale::kFromZero && y.low >= 0) {
    axes.y = linear_axis(0, y.high > 0 ? y.high : 1, y_ticks);
  } else {
    axes.y = linear_axis(y.low, y.high, y_ticks);
  }
  return axes;
}

std::string svg_line_plot(const Plot& plot, PlotSize size) {
  const PlotAxes axes = plot_axes(plot, size);
  const auto y_labels = tick_labels(axes.y);
  const Frame frame = make_frame(axes, y_labels, size);
  std::string out = svg_opening(plot, size, frame);
  draw_y_axis(out, frame, y_labels);
  draw_x_axis(out, frame);
  out += fmt::format(R"(<text class="label" x="6" y="14">{}</text>)", escape_html(plot.y_label));
  out += fmt::format(R"(<text class="label" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                     (frame.left + frame.right) / 2, size.height - 6, escape_html(plot.x_label));
  draw_marks(out, plot, frame);
  for (const auto& series : plot.series) draw_series(out, series, frame);
  return out + "</svg>";
}

std::string svg_legend_sample(const Style& style) {
  std::string out = R"(<svg class="sample" viewBox="0 0 26 12" aria-hidden="true">)";
  const auto classes = style_classes(style.run);
  if (style.line != Line::kNone) {
    out += fmt::format(R"(<path class="{} {}" d="M1 6H25"/>)", line_class(style.line), classes);
  }
  if (style.marker != Marker::kNone) {
    out += fmt::format(R"(<g class="marker {}">)", classes);
    draw_marker(out, style.marker, 13, 6);
    out += "</g>";
  }
  return out + "</svg>";
}

}  // namespace gantry::cli::report
