#pragma once
// What a benchmark suite prints: rows next to their baselines and tables, for people, as Markdown or as JSON lines.
#include <string>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::cli::planner {

struct BenchRow {
  std::string row;
  double value = 0;
  std::string unit;
  std::string baseline;
  double baseline_value = 0;
  double ratio = 0;
  std::int64_t runs = 1;
};

/// A table of texts; `json` holds what a machine should read, one object a line.
struct BenchTable {
  std::string name;   ///< field "table" of the JSON lines
  std::string title;  ///< a sentence
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> cells;  ///< as many a line as columns
  std::vector<base::OrderedJson> json;
  std::vector<std::string> notes;  ///< below the table
};

/// "12.34 s", or "nothing fits" for infinity.
std::string seconds_text(double seconds);

class BenchOutput {
 public:
  enum class Form { kText, kMarkdown, kJson };
  /// `digits` are those of values in text and Markdown.
  BenchOutput(std::string suite, Form form, int digits = 7);

  void row(const BenchRow& row);
  void missing(const std::string& row, const std::string& baseline, const std::string& why);
  void table(const BenchTable& table);
  /// Markdown: prints rows and tables, collected until now; other forms print at once.
  void finish();

 private:
  void heading();
  void print_text(const BenchTable& table) const;

  std::string suite_;
  Form form_;
  int digits_;
  bool heading_printed_ = false;
  std::string markdown_rows_;
  std::string markdown_tables_;
};

}  // namespace gantry::cli::planner
