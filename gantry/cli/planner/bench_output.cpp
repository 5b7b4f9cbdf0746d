#include "gantry/cli/planner/bench_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace gantry::cli::planner {
namespace {

std::string markdown_line(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += fmt::format(" {} |", cell);
  return line + "\n";
}

std::string markdown_rule(std::size_t columns) {
  std::string line = "|";
  for (std::size_t i = 0; i < columns; ++i) line += "---|";
  return line + "\n";
}

// Terminal columns of UTF-8 text without wide characters.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string seconds_text(double seconds) {
  return std::isfinite(seconds) ? fmt::format("{:.4g} s", seconds) : "nothing fits";
}

BenchOutput::BenchOutput(std::string suite, Form form, int digits)
    : suite_(std::move(suite)), form_(form), digits_(digits) {}

void BenchOutput::heading() {
  if (heading_printed_) return;
  heading_printed_ = true;
  std::printf("%-32s %12s %-8s %-30s %12s %8s %5s\n", "row", "value", "unit", "baseline", "value", "ratio", "runs");
}

void BenchOutput::row(const BenchRow& row) {
  if (form_ == Form::kJson) {
    const base::OrderedJson json{{"suite", suite_},          {"row", row.row},
                                 {"value", row.value},       {"unit", row.unit},
                                 {"baseline", row.baseline}, {"baseline_value", row.baseline_value},
                                 {"ratio", row.ratio},       {"runs", row.runs}};
    std::printf("%s\n", json.dump().c_str());
  } else if (form_ == Form::kMarkdown) {
    markdown_rows_ +=
        markdown_line({fmt::format("`{}`", row.row), fmt::format("{:.{}g} {}", row.value, digits_, row.unit),
                       row.baseline, fmt::format("{:.{}g}", row.baseline_value, digits_),
                       fmt::format("{:.4g}", row.ratio), fmt::format("{}", row.runs)});
  } else {
    heading();
    std::printf("%-32s %12.*g %-8s %-30s %12.*g %8.3f %5ld\n", row.row.c_str(), digits_, row.value, row.unit.c_str(),
                row.baseline.c_str(), digits_, row.baseline_value, row.ratio, static_cast<long>(row.runs));
  }
  std::fflush(stdout);
}

void BenchOutput::missing(const std::string& row, const std::string& baseline, const std::string& why) {
  if (form_ == Form::kJson) {
    const base::OrderedJson json{{"suite", suite_}, {"row", row}, {"baseline", baseline}, {"missing", why}};
    std::printf("%s\n", json.dump().c_str());
  } else if (form_ == Form::kMarkdown) {
    markdown_rows_ += markdown_line({fmt::format("`{}`", row), "missing: " + why, baseline, "", "", ""});
  } else {
    heading();
    std::printf("%-32s %12s %-8s %-30s missing: %s\n", row.c_str(), "-", "", baseline.c_str(), why.c_str());
  }
  std::fflush(stdout);
}

void BenchOutput::table(const BenchTable& table) {
  if (form_ == Form::kJson) {
    for (const base::OrderedJson& line : table.json) {
      base::OrderedJson json{{"suite", suite_}, {"table", table.name}};
      json.update(line);
      std::printf("%s\n", json.dump().c_str());
    }
  } else if (form_ == Form::kMarkdown) {
    markdown_tables_ +=
        fmt::format("\n**{}**\n\n{}{}", table.title, markdown_line(table.columns), markdown_rule(table.columns.size()));
    for (const auto& line : table.cells) markdown_tables_ += markdown_line(line);
    for (const std::string& note : table.notes) markdown_tables_ += fmt::format("\n{}\n", note);
  } else {
    print_text(table);
  }
  std::fflush(stdout);
}

void BenchOutput::print_text(const BenchTable& table) const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    std::size_t width = width_of(table.columns[c]);
    for (const auto& line : table.cells) width = std::max(width, width_of(line[c]));
    widths.push_back(width);
  }
  const auto print = [&](const std::vector<std::string>& cells) {
    std::string line = " ";
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string pad(widths[c] - width_of(cells[c]), ' ');
      line += c == 0 ? fmt::format(" {}{}", cells[c], pad) : fmt::format("  {}{}", pad, cells[c]);
    }
    std::printf("%s\n", line.c_str());
  };
  std::printf("\n%s\n", table.title.c_str());
  print(table.columns);
  for (const auto& line : table.cells) print(line);
  for (const std::string& note : table.notes) std::printf("  %s\n", note.c_str());
  std::printf("\n");
}

void BenchOutput::finish() {
  if (form_ != Form::kMarkdown) return;
  if (!markdown_rows_.empty()) {
    std::printf("%s%s%s", markdown_line({"row", "value", "baseline", "its value", "ratio", "runs"}).c_str(),
                markdown_rule(6).c_str(), markdown_rows_.c_str());
  }
  std::printf("%s", markdown_tables_.c_str());
}

}  // namespace gantry::cli::planner
