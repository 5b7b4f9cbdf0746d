#include "gantry/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace gantry::base {

Progress::Progress(std::string label, std::uint64_t total, std::string unit, std::uint64_t done)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      done_(done),
      first_done_(done),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_draw_(start_) {}

Progress::~Progress() { finish(); }

void Progress::update(std::uint64_t done, const std::string& note) {
  started_ = true;
  done_ = done;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  const auto interval = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  const bool completes_bar = terminal_ && done_ == total_;  // a log gets its closing line from finish()
  if (now - last_draw_ < interval && !completes_bar) return;
  last_draw_ = now;
  draw(false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (started_) draw(true);
}

void Progress::draw(bool last) {
  const double elapsed =
      std::max(1e-9, std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  const double rate = static_cast<double>(done_ - std::min(first_done_, done_)) / elapsed;
  std::string line = label_;
  if (total_ > 0) {
    const double fraction = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    if (terminal_) {
      constexpr int kWidth = 24;
      const int filled = static_cast<int>(fraction * kWidth);
      line += " [";
      for (int i = 0; i < kWidth; ++i) line += i < filled ? "█" : "·";
      line += "]";
    }
    line += fmt::format(" {:3.0f}% {}/{} {}", 100 * fraction, done_, total_, unit_);
  } else {
    line += fmt::format(" {} {}", done_, unit_);
  }
  line += rate >= 10 ? fmt::format(", {:.0f} {}/s", rate, unit_) : fmt::format(", {:.2f} {}/s", rate, unit_);
  if (!last && total_ > done_ && rate > 0) {
    line += ", ETA " + format_duration(static_cast<double>(total_ - done_) / rate);
  } else if (last) {
    line += ", took " + format_duration(elapsed);
  }
  if (!note_.empty()) line += " | " + note_;
  if (terminal_) {
    std::fprintf(stderr, "\r\033[2K%s%s", line.c_str(), last ? "\n" : "");
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::fflush(stderr);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";  // NaN, or decades: not worth a number
  const auto whole = static_cast<std::uint64_t>(std::llround(seconds));
  if (whole >= 3600) return fmt::format("{}h{:02d}m", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{}m{:02d}s", whole / 60, whole % 60);
  return seconds < 10 ? fmt::format("{:.1f}s", seconds) : fmt::format("{}s", whole);
}

std::string format_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace gantry::base
