#pragma once
// Records of a run, one JSON object a line (metrics.jsonl); `gantry report` draws them. A line is written whole or not
// at all, so a killed run leaves at most one broken last line.
#include <filesystem>
#include <string>

#include "gantry/base/json.h"

namespace gantry::train {

class MetricsWriter {
 public:
  /// Appends to `file` (made when missing). With `keep_before_step` >= 0, records of later steps (from a run that was
  /// killed after its last checkpoint) are dropped first.
  MetricsWriter(std::filesystem::path file, std::int64_t keep_before_step);

  /// Adds a line and flushes it. Numbers that are NaN or infinite become null. Error when the disk is full.
  void write(const base::OrderedJson& record);

 private:
  std::filesystem::path file_;
};

}  // namespace gantry::train
