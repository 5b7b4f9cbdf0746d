#include "gantry/cli/report/svg_plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace gantry::cli::report {
namespace {

std::size_t count_in(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

Plot plot_of(std::vector<Point> points, Style style = {}) {
  Plot plot{.title = "Loss", .note = {}, .x_label = "step", .y_label = "nats"};
  plot.series.push_back({"training", style, std::move(points)});
  return plot;
}

TEST(SvgPlot, PutsTheCornersOfTheDataOnTheFrame) {
  const Plot plot = plot_of({{0, 0}, {10, 10}});
  const auto svg = svg_line_plot(plot, {400, 200});
  EXPECT_NE(svg.find(R"(data-axes="0 10 0 10 linear")"), std::string::npos) << svg;
  EXPECT_NE(svg.find(R"(data-frame="27.6 386.0 30.0 160.0")"), std::string::npos) << svg;
  EXPECT_NE(svg.find("M27.6 160.0L386.0 30.0h0\""), std::string::npos) << svg;
}

TEST(SvgPlot, LabelsAxesAndTicks) {
  const auto svg = svg_line_plot(plot_of({{0, 0}, {10, 10}}), {400, 200});
  EXPECT_NE(svg.find(">nats</text>"), std::string::npos);
  EXPECT_NE(svg.find(">step</text>"), std::string::npos);
  EXPECT_NE(svg.find(">10</text>"), std::string::npos);
}

TEST(SvgPlot, BreaksTheLineWhereAValueIsMissing) {
  const auto svg =
      svg_line_plot(plot_of({{0, 1}, {1, 2}, {2, NAN}, {3, 2}, {4, INFINITY}, {5, 1}, {6, 3}}), {400, 200});
  const auto path = svg.substr(svg.find("class=\"line c0\""));
  EXPECT_EQ(count_in(path.substr(0, path.find("/>")), "M"), 3U) << path;
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(SvgPlot, DrawsNothingForACurveWithoutValues) {
  const auto svg = svg_line_plot(plot_of({{0, NAN}, {1, NAN}}), {400, 200});
  EXPECT_EQ(svg.find("class=\"line"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(SvgPlot, StaysFiniteForTheLargestNumbers) {
  const auto svg = svg_line_plot(plot_of({{0, -1.7e308}, {9e15, 1.7e308}}), {400, 200});
  EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
  EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
}

TEST(SvgPlot, EscapesText) {
  Plot plot = plot_of({{0, 1}, {1, 2}});
  plot.title = "\"><script>alert(1)</script>";
  plot.y_label = "<b>";
  const auto svg = svg_line_plot(plot, {400, 200});
  EXPECT_EQ(svg.find("<script>"), std::string::npos);
  EXPECT_EQ(svg.find("<b>"), std::string::npos);
  EXPECT_NE(svg.find("&quot;&gt;&lt;script&gt;"), std::string::npos);
}

TEST(SvgPlot, ScalesFromZeroOrLogarithmicallyOnlyWhereValuesAllowIt) {
  Plot plot = plot_of({{0, 90}, {1, 100}});
  plot.scale = Scale::kFromZero;
  EXPECT_EQ(plot_axes(plot, {400, 200}).y.low, 0);
  plot.scale = Scale::kLogarithmic;
  EXPECT_TRUE(plot_axes(plot, {400, 200}).y.logarithmic);
  plot.series[0].points[0].y = 0;
  EXPECT_FALSE(plot_axes(plot, {400, 200}).y.logarithmic);
}

TEST(SvgPlot, DrawsMarkersAndMergesMarksOfOnePixel) {
  Plot plot = plot_of({{0, 1}, {1000, 2}}, {1, Line::kNone, Marker::kCircle});
  for (int step = 500; step < 504; ++step) plot.marks.push_back({static_cast<double>(step), Mark::Kind::kNotFinite, 0});
  plot.marks.push_back({900, Mark::Kind::kResumed, 0});
  const auto svg = svg_line_plot(plot, {400, 200});
  EXPECT_EQ(count_in(svg, "<circle"), 2U);
  EXPECT_LE(count_in(svg, "class=\"diverged\""), 2U);
  EXPECT_GE(count_in(svg, "class=\"diverged\""), 1U);
  EXPECT_EQ(count_in(svg, "class=\"resumed"), 1U);
}

TEST(StyleClasses, TellMoreRunsApartThanThereAreColors) {
  EXPECT_EQ(style_classes(0), "c0");
  EXPECT_EQ(style_classes(6), "c0 d1");
  EXPECT_EQ(style_classes(13), "c1 d2");
  EXPECT_EQ(style_classes(-1), "ink");
}

}  // namespace
}  // namespace gantry::cli::report
