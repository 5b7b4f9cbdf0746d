#pragma once
// Line plots as SVG text. Colours come from the page's style sheet through classes (c0..c5, d1, d2, raw, ...), so that
// one drawing serves light, dark and print.
#include <cmath>
#include <string>
#include <vector>

#include "gantry/cli/report/series.h"
#include "gantry/cli/report/ticks.h"

namespace gantry::cli::report {

enum class Line { kNone, kSolid, kFaint, kDotted };
enum class Marker { kNone, kCircle, kSquare, kDiamond };

/// How a curve looks; `run` picks its colour (and a dash pattern beyond the six colours), -1 the text's colour.
struct Style {
  int run = 0;
  Line line = Line::kSolid;
  Marker marker = Marker::kNone;
};

struct Series {
  std::string name;
  Style style;
  std::vector<Point> points;
};

/// Something that happened at an x: drawn over the whole height or at the upper edge.
struct Mark {
  enum class Kind { kResumed, kNotFinite };
  double x = 0;
  Kind kind = Kind::kResumed;
  int run = 0;
};

struct LegendEntry {
  std::string text;
  Style style;
};

enum class Scale { kFromZero, kFit, kLogarithmic };

struct Plot {
  std::string title;
  std::string note;  // small print beside the title; may be empty
  std::string x_label;
  std::string y_label;  // with the unit
  Scale scale = Scale::kFit;
  bool x_logarithmic = false;  // where all x are positive
  double y_cap = INFINITY;     // values above it do not widen the axis; an arrow shows where they leave its top
  std::vector<Series> series = {};
  std::vector<Mark> marks = {};
  std::vector<LegendEntry> legend = {};
};

/// Pixels at scale 1; the drawing scales with the page.
struct PlotSize {
  int width = 0;
  int height = 0;
};

/// The axes that hold every finite point up to the cap. Without any point both run from 0 to 1.
struct PlotAxes {
  AxisRange x;
  AxisRange y;
};
PlotAxes plot_axes(const Plot& plot, PlotSize size);

/// The drawing. Lines break at points that are not finite; a lone point between two gaps becomes a dot.
std::string svg_line_plot(const Plot& plot, PlotSize size);

/// A short sample of a curve for the legend.
std::string svg_legend_sample(const Style& style);

/// Class names of a curve: "c2 d1".
std::string style_classes(int run);

}  // namespace gantry::cli::report
