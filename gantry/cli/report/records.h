#pragma once
// What a training run wrote: metrics.jsonl, read back into rows.
//
// One JSON object a line, told apart by "event": start or resume, step, eval, checkpoint, end; others are
// skipped. Numbers
// may be null or the strings "NaN", "Infinity", "-Infinity". A run that was resumed appends: a "step" line that goes
// back to step s replaces what the file says of s and later. A malformed line is an error that names file and line,
// unless a killed process explains it: as the last line, or just before the start of the next attempt.
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::cli::report {

/// One optimiser step. A number that the line lacks, or that is null, is NaN.
struct StepRecord {
  std::int64_t step = 0;
  double loss = 0;
  double learning_rate = 0;
  double grad_norm = 0;
  double tokens = 0;  // of this step
  double tokens_per_s = 0;
  double step_s = 0;
  double memory_bytes = 0;
  bool diverged = false;  // the line has a loss and it is no finite number
};

struct EvalRecord {
  std::int64_t step = 0;
  std::string split;
  double loss = 0;
  double perplexity = 0;
  double tokens = 0;
};

struct RunRecords {
  std::string name;  // what the page calls the run: its folder's or file's name
  std::filesystem::path file;
  base::Json start = base::Json::object();  // the last line of its kind: model, options, machine, version, time
  std::vector<StepRecord> steps;            // ascending, one a step
  std::vector<EvalRecord> evals;            // ascending by step, one a step and split
  std::vector<std::int64_t> resumed_at;     // first step of each later attempt
  std::int64_t checkpoints = 0;
  double duration_s = 0;                  // time of all attempts, work that was repeated included
  double peak_memory_bytes = NAN;         // of the last attempt's process, if it ended
  std::optional<std::string> end_reason;  // empty: still running, or stopped from outside
  std::vector<std::string> notices;       // sentences for the reader of the page
};

/// Reads the text of a metrics file; `source` starts the messages of the InputErrors raised. Name and file stay empty.
RunRecords parse_records(std::string_view text, std::string_view source);

/// Reads a run's folder (its metrics.jsonl) or a metrics file. Throws InputError when there is none, when it holds no
/// record, or when a line is malformed.
RunRecords read_run(const std::filesystem::path& run);

/// Reads several runs and gives them distinct names.
std::vector<RunRecords> read_runs(const std::vector<std::filesystem::path>& runs);

}  // namespace gantry::cli::report
