// The drawing: a fixed-size SVG without scripts whose rows are stages.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "gantry/base/json.h"
#include "gantry/simulate/timeline_blocks.h"

namespace gantry::simulate {
namespace {

constexpr double kWidth = 1440;
constexpr double kLeft = 72;    // stage names
constexpr double kRight = 92;   // bubbles
constexpr double kTop = 78;     // title and legend
constexpr double kBottom = 44;  // axis
constexpr double kCut = 28;     // between the two windows
constexpr double kBar = 4;
constexpr double kRowGap = 9;
constexpr std::size_t kMostBlocks = 1500;
constexpr std::size_t kMostBlocksOfStage = 80;

constexpr std::string_view kStyle = R"(<style>
svg{background:#fff;font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
text{fill:#5c6673}.title{font-size:16px;font-weight:600;fill:#1b2027}.name{fill:#1b2027}
.n{fill:#fff;font-size:9px;text-anchor:middle}.n.d{fill:#1b2027}
.idle{fill:#eef0f3}.line{stroke:#9aa3ae;stroke-width:1;fill:none}.grid{stroke:#d5dae0;stroke-width:1}
.f{fill:#0b6fb3}.b{fill:#00876a}.r{fill:#e9b949}.w{fill:#7d5fb8}.o{fill:#5c6673}
.c{fill:#b4578f}.p{fill:#1b2027}.i{fill:#cf5500}.u{fill:#a87400}
@media (prefers-color-scheme:dark){svg{background:#1a2027}text{fill:#98a3af}.title,.name{fill:#e6e9ed}
.n,.n.d{fill:#12161b}.idle{fill:#242c35}.line{stroke:#66717d}.grid{stroke:#3a444f}
.f{fill:#5ab2ee}.b{fill:#35c9a2}.w{fill:#b79df0}.o{fill:#98a3af}.c{fill:#e69cc8}.p{fill:#e6e9ed}.i{fill:#ff9350}.u{fill:#c8a04a}}
</style>
)";

struct Look {
  std::string_view css;
  std::string_view text;
};
constexpr std::array<Look, 4> kBlockLooks = {
    {{"f", "forward"}, {"b", "backward"}, {"w", "gradients of weights"}, {"o", "optimizer"}}};
constexpr Look kRecomputeLook = {"r", "recomputation (share of the backward)"};
constexpr std::array<Look, 4> kBarLooks = {
    {{"c", "collectives"}, {"p", "between stages"}, {"i", "copies in"}, {"u", "copies out"}}};

/// Seconds to positions; where two windows show the ends of the iteration, what lies between has no place.
struct TimeAxis {
  double total_s = 1;
  double window_s = 0;  // of either end; 0: everything is shown
  double width = kWidth - kLeft - kRight;

  bool cut() const { return window_s > 0; }
  double scale() const { return cut() ? (width - kCut) / 2 / window_s : width / total_s; }
  double x(double seconds) const {
    if (!cut() || seconds <= window_s) return kLeft + seconds * scale();
    return kLeft + width - (total_s - seconds) * scale();
  }
  /// The shown part of [start, end] in one window (0 or 1); empty where low >= high.
  struct Range {
    double low = 0, high = 0;
  };
  Range shown(double start_s, double end_s, int window) const {
    if (!cut()) return window == 0 ? Range{start_s, end_s} : Range{};
    if (window == 0) return {start_s, std::min(end_s, window_s)};
    return {std::max(start_s, total_s - window_s), end_s};
  }
  int windows() const { return cut() ? 2 : 1; }
  double from(int window) const { return window == 0 ? 0 : total_s - window_s; }
  double to(int window) const { return cut() && window == 0 ? window_s : total_s; }
};

struct Layout {
  TimeAxis axis;
  std::array<bool, 4> blocks{};
  std::array<bool, 4> bars{};
  bool recompute = false;
  int bar_rows = 0;
  double block_height = 24;
  double row_height() const { return block_height + bar_rows * (kBar + 1) + kRowGap; }
  double row_y(std::size_t stage) const { return kTop + static_cast<double>(stage) * row_height(); }
  double height(std::size_t stages) const { return kTop + static_cast<double>(stages) * row_height() + kBottom; }
  /// Collectives and transfers between stages share the row of their channel.
  int bar_row(BarKind kind) const {
    const bool collective = bars[0] || bars[1];
    switch (kind) {
      case BarKind::kCollective:
      case BarKind::kTransfer: return 0;
      case BarKind::kCopyIn: return collective ? 1 : 0;
      case BarKind::kCopyOut: return (collective ? 1 : 0) + (bars[2] ? 1 : 0);
    }
    return 0;
  }
};

template <class... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

std::string escaped(const std::string& text) {
  // Through JSON, which replaces bytes that are no UTF-8.
  const auto replace = base::Json::error_handler_t::replace;
  const std::string valid = base::Json::parse(base::Json(text).dump(-1, ' ', false, replace)).get<std::string>();
  std::string out;
  for (const char c : valid) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

void rectangle(std::string& out, std::string_view css, double x, double y, double width, double height,
               double opacity = 1) {
  put(out, R"(<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}")", css, x, y, std::max(width, 0.3),
      height);
  if (opacity < 1) put(out, R"( fill-opacity="{:.2f}")", opacity);
  out += "/>";
}

std::string duration(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3f} ms", seconds * 1e3);
  return fmt::format("{:.3f} µs", seconds * 1e6);
}

Layout make_layout(const std::vector<StageRow>& rows, const TimeAxis& axis) {
  Layout layout;
  layout.axis = axis;
  for (const StageRow& row : rows) {
    for (const Block& block : row.blocks) {
      layout.blocks[static_cast<std::size_t>(block.kind)] = true;
      layout.recompute = layout.recompute || block.recompute_s > 0;
    }
    for (const Bar& bar : row.bars) layout.bars[static_cast<std::size_t>(bar.kind)] = true;
  }
  layout.bar_rows = (layout.bars[0] || layout.bars[1] ? 1 : 0) + (layout.bars[2] ? 1 : 0) + (layout.bars[3] ? 1 : 0);
  if (rows.size() > 16) layout.block_height = 16;
  return layout;
}

TimeAxis make_axis(const Outcome& outcome, const std::vector<StageRow>& rows) {
  std::size_t blocks = 0;
  for (const StageRow& row : rows) blocks += row.blocks.size();
  const std::size_t most = std::max(kMostBlocks, std::min(kMostBlocksOfStage * rows.size(), 4 * kMostBlocks));
  TimeAxis axis;
  axis.total_s = std::max(outcome.iteration_s, 1e-12);
  if (blocks > most) axis.window_s = axis.total_s / 2 * static_cast<double>(most) / static_cast<double>(blocks);
  return axis;
}

void draw_legend(std::string& out, const Layout& layout) {
  double x = kLeft;
  const auto entry = [&](const Look& look, bool thin) {
    rectangle(out, look.css, x, thin ? 55 : 50, 14, thin ? kBar : 12);
    put(out, R"(<text x="{:.1f}" y="60">{}</text>)", x + 20, look.text);
    x += 42 + 6.2 * static_cast<double>(look.text.size());
  };
  for (std::size_t i = 0; i < kBlockLooks.size(); ++i) {
    if (layout.blocks[i]) entry(kBlockLooks[i], false);
    if (i == 1 && layout.recompute) entry(kRecomputeLook, false);
  }
  for (std::size_t i = 0; i < kBarLooks.size(); ++i) {
    if (layout.bars[i]) entry(kBarLooks[i], true);
  }
  out += "\n";
}

void draw_block(std::string& out, const Layout& layout, const Block& block, double y, int chunks, int window) {
  const auto [low, high] = layout.axis.shown(block.start_s, block.end_s, window);
  if (low >= high) return;
  const double x = layout.axis.x(low), width = (high - low) * layout.axis.scale();
  const double inner = std::max(width - (width > 4 ? 0.8 : 0.2), 0.3);  // a seam between neighbours
  const double opacity = chunks > 1 ? 1 - 0.5 * block.chunk / (chunks - 1) : 1;
  rectangle(out, kBlockLooks[static_cast<std::size_t>(block.kind)].css, x, y, inner, layout.block_height, opacity);
  const double repeated = std::min(block.start_s + block.recompute_s, high) - low;
  if (block.recompute_s > 0 && repeated > 0) {
    rectangle(out, kRecomputeLook.css, x, y, std::min(repeated * layout.axis.scale(), inner), layout.block_height,
              opacity);
  }
  if (block.micro_batch < 0) return;
  const std::string number = std::to_string(block.micro_batch);
  if (width < 1.5 + 5.2 * static_cast<double>(number.size())) return;
  const bool dark = opacity < 0.75 || (block.recompute_s > 0 && repeated * layout.axis.scale() > width / 2);
  put(out, R"(<text class="n{}" x="{:.1f}" y="{:.1f}">{}</text>)", dark ? " d" : "", x + width / 2,
      y + layout.block_height / 2 + 3.5, number);
}

/// One path a kind: there may be thousands of bars.
void draw_bars(std::string& out, const Layout& layout, const std::vector<Bar>& bars, double y, int window) {
  std::array<std::string, kBarLooks.size()> paths;
  for (const Bar& bar : bars) {
    const auto [low, high] = layout.axis.shown(bar.start_s, bar.end_s, window);
    if (low >= high) continue;
    const double width = std::max((high - low) * layout.axis.scale(), 0.5);
    put(paths[static_cast<std::size_t>(bar.kind)], "M{:.1f} {:.1f}h{:.1f}v{}h-{:.1f}z", layout.axis.x(low),
        y + layout.bar_row(bar.kind) * (kBar + 1), width, kBar, width);
  }
  for (std::size_t kind = 0; kind < paths.size(); ++kind) {
    if (!paths[kind].empty()) put(out, R"(<path class="{}" d="{}"/>)", kBarLooks[kind].css, paths[kind]);
  }
}

void draw_stage(std::string& out, const Layout& layout, const Outcome& outcome, const StageRow& row, std::size_t stage,
                int chunks) {
  const double y = layout.row_y(stage);
  put(out, R"(<text class="name" x="{:.0f}" y="{:.1f}" text-anchor="end">stage {}</text>)", kLeft - 10,
      y + layout.block_height / 2 + 4, stage);
  put(out, R"(<text x="{:.0f}" y="{:.1f}">idle {:.1f} %</text>)", kWidth - kRight + 10, y + layout.block_height / 2 + 4,
      100 * outcome.bubble_s[stage] / layout.axis.total_s);
  for (int window = 0; window < layout.axis.windows(); ++window) {
    const double from = layout.axis.from(window), to = layout.axis.to(window);
    const double left = window == 0 ? kLeft : layout.axis.x(from);
    rectangle(out, "idle", left, y, (to - from) * layout.axis.scale(), layout.block_height);
    for (const Block& block : row.blocks) draw_block(out, layout, block, y, chunks, window);
    draw_bars(out, layout, row.bars, y + layout.block_height + 1, window);
    out += "\n";
  }
}

void draw_axis(std::string& out, const Layout& layout, std::size_t stages) {
  const TimeAxis& axis = layout.axis;
  const double y = layout.row_y(stages);
  const double wanted = 110 / axis.scale();
  const double power = std::pow(10, std::floor(std::log10(wanted)));
  const double step = wanted <= power       ? power
                      : wanted <= 2 * power ? 2 * power
                      : wanted <= 5 * power ? 5 * power
                                            : 10 * power;
  const double unit = axis.total_s >= 1 ? 1 : axis.total_s >= 1e-3 ? 1e-3 : 1e-6;
  const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step / unit * 1.0001))), 0, 9);
  for (int window = 0; window < axis.windows(); ++window) {
    const double from = axis.from(window), to = axis.to(window);
    const double left = window == 0 ? kLeft : axis.x(from);
    put(out, R"(<line class="line" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", left,
        left + (to - from) * axis.scale(), y, y);
    for (double tick = window == 0 ? 0 : std::ceil(from / step) * step; tick <= to * (1 + 1e-12); tick += step) {
      const double x = left + (tick - from) * axis.scale();
      put(out, R"(<line class="line" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>)", x, y, y + 5);
      put(out, R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{:.{}f}</text>)", x, y + 18, tick / unit, decimals);
    }
  }
  put(out, R"(<text x="{:.1f}" y="{:.1f}">{}</text>)", kWidth - kRight + 10, y + 18,
      unit == 1      ? "seconds"
      : unit == 1e-3 ? "milliseconds"
                     : "microseconds");
  if (!axis.cut()) return;
  const double middle = kLeft + axis.width / 2;
  put(out, R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{} not drawn</text>)", middle, y + 36,
      duration(axis.total_s - 2 * axis.window_s));
  for (const double x : {middle - 3, middle + 3}) {
    put(out, R"(<line class="line" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", x + 3, x - 3, y - 5, y + 5);
  }
}

}  // namespace

std::string timeline_svg(const Outcome& outcome, const std::string& title) {
  const std::vector<StageRow> whole = stage_rows(outcome, 0);
  const TimeAxis axis = make_axis(outcome, whole);
  const std::vector<StageRow> rows = stage_rows(outcome, 1.5 / axis.scale());
  const Layout layout = make_layout(rows, axis);
  int micro_batches = 0, chunks = 1;
  for (const Event& event : outcome.events) {
    micro_batches = std::max(micro_batches, event.micro_batch + 1);
    chunks = std::max(chunks, event.chunk + 1);
  }
  double idle_s = 0;
  for (const double seconds : outcome.bubble_s) idle_s += seconds / static_cast<double>(outcome.bubble_s.size());
  const std::string heading =
      fmt::format("{}{}iteration {}", escaped(title), title.empty() ? "" : ": ", duration(outcome.iteration_s));
  const double height = layout.height(rows.size());
  std::string out = fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" height="{1:.0f}" )"
      R"(role="img" aria-label="{2}">)",
      kWidth, height, heading);
  out += kStyle;
  put(out, R"(<text class="title" x="{:.0f}" y="24">{}</text>)", kLeft, heading);
  put(out, R"(<text x="{:.0f}" y="42">{} stages, {} micro-batches, {:.1f} % of the devices' time idle{}</text>)", kLeft,
      rows.size(), micro_batches, 100 * idle_s / axis.total_s, chunks > 1 ? "; lighter: later model chunks" : "");
  out += "\n";
  draw_legend(out, layout);
  for (std::size_t i = 0; i < rows.size(); ++i) draw_stage(out, layout, outcome, rows[i], i, chunks);
  draw_axis(out, layout, rows.size());
  return out + "</svg>\n";
}

}  // namespace gantry::simulate
