#include "gantry/cli/report/records.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <system_error>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/file.h"

namespace gantry::cli::report {
namespace {

using base::Json;

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kMaxStep = std::int64_t{1} << 53;  // beyond it a double, the plots' type, is no exact integer

double parse_number_name(const std::string& text) {
  if (text == "NaN" || text == "nan") return kNoNumber;
  if (text == "Infinity" || text == "inf" || text == "+Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity" || text == "-inf") return -std::numeric_limits<double>::infinity();
  return 0;
}

double number(const Json& line, const char* key, std::string_view where) {
  const auto found = line.find(key);
  if (found == line.end() || found->is_null()) return kNoNumber;
  if (found->is_number()) return found->get<double>();
  if (found->is_string()) {
    const double value = parse_number_name(found->get<std::string>());
    if (value != 0) return value;
  }
  base::fail_input("{}: '{}' should be a number, found {}", where, key,
                   found->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40));
}

std::int64_t step_number(const Json& line, std::string_view where) {
  const auto step = base::json_get<double>(line, "step", where);
  GANTRY_CHECK(step >= 0 && step <= static_cast<double>(kMaxStep) && step == std::floor(step),
               "{}: 'step' should be a whole number from 0, found {}", where, step);
  return static_cast<std::int64_t>(step);
}

/// Builds the rows line by line.
class Reader {
 public:
  explicit Reader(std::string_view source) : source_(source) {}

  void read(std::string_view text) {
    for (std::int64_t line = 1; !text.empty(); ++line) {
      const auto end = text.find('\n');
      take(text.substr(0, end), line);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    if (!broken_.empty()) skip_broken("the last line is incomplete, as after a kill, and was skipped");
  }

  RunRecords finish() && {
    for (auto& [step, record] : steps_) run_.steps.push_back(record);
    for (auto& [key, record] : evals_) run_.evals.push_back(std::move(record));
    run_.duration_s = past_attempts_s_ + last_time_s_;
    return std::move(run_);
  }

  bool empty() const { return records_ == 0; }

 private:
  void take(std::string_view text, std::int64_t line) {
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    const std::string where = fmt::format("{}:{}", source_, line);
    try {
      const Json record = base::parse_json(text, where);
      const auto event = base::json_get<std::string>(record, "event", where);
      if (!broken_.empty()) {
        if (event != "start" && event != "resume") throw base::InputError(broken_);
        skip_broken("an incomplete line before a restart was skipped");
      }
      dispatch(event, record, where);
      ++records_;
    } catch (const base::InputError& error) {
      if (!broken_.empty()) throw base::InputError(broken_);
      broken_ = error.what();
    }
  }

  void skip_broken(std::string_view explanation) {
    const std::string place = broken_.substr(0, broken_.find(": "));
    run_.notices.push_back(fmt::format("{}: {}.", place, explanation));
    broken_.clear();
  }

  void dispatch(const std::string& event, const Json& record, const std::string& where) {
    if (event == "start" || event == "resume") {
      run_.start = record;
      run_.end_reason.reset();
      awaits_first_step_ = starts_++ > 0;
    } else if (event == "step") {
      take_step(record, where);
    } else if (event == "eval") {
      take_eval(record, where);
    } else if (event == "checkpoint") {
      ++run_.checkpoints;
    } else if (event == "end") {
      run_.end_reason = base::json_get_or<std::string>(record, "reason", "done", where);
      run_.peak_memory_bytes = number(record, "peak_memory_bytes", where);
    }
  }

  void take_step(const Json& line, const std::string& where) {
    StepRecord record;
    record.step = step_number(line, where);
    record.loss = number(line, "loss", where);
    record.learning_rate = number(line, "learning_rate", where);
    record.grad_norm = number(line, "grad_norm", where);
    record.tokens = number(line, "tokens", where);
    record.tokens_per_s = number(line, "tokens_per_s", where);
    record.step_s = number(line, "step_s", where);
    record.memory_bytes = number(line, "memory_bytes", where);
    record.diverged = line.contains("loss") && !std::isfinite(record.loss);
    const double time_s = number(line, "time_s", where);
    if (awaits_first_step_) run_.resumed_at.push_back(record.step);
    awaits_first_step_ = false;
    go_back_to(record.step);
    steps_[record.step] = record;
    if (std::isfinite(time_s) && time_s >= 0) {
      if (time_s < last_time_s_) past_attempts_s_ += last_time_s_;
      last_time_s_ = time_s;
    }
  }

  /// Forgets what an earlier attempt did from `step` on. A score at `step` counts as before it only if it was measured
  /// before: evaluation follows the step of the same number.
  void go_back_to(std::int64_t step) {
    if (steps_.empty() || step > steps_.rbegin()->first) return;
    steps_.erase(steps_.lower_bound(step), steps_.end());
    evals_.erase(evals_.lower_bound({step, ""}), evals_.end());
  }

  void take_eval(const Json& line, const std::string& where) {
    EvalRecord record;
    record.step = step_number(line, where);
    record.split = base::json_get_or<std::string>(line, "split", "validation", where);
    record.loss = number(line, "loss", where);
    record.perplexity = number(line, "perplexity", where);
    record.tokens = number(line, "tokens", where);
    if (std::isnan(record.perplexity) && std::isfinite(record.loss)) record.perplexity = std::exp(record.loss);
    evals_[{record.step, record.split}] = record;
  }

  std::string_view source_;
  RunRecords run_;
  std::map<std::int64_t, StepRecord> steps_;
  std::map<std::pair<std::int64_t, std::string>, EvalRecord> evals_;
  std::string broken_;  // the message of a malformed line that nothing has explained yet
  std::int64_t records_ = 0;
  std::int64_t starts_ = 0;
  bool awaits_first_step_ = false;
  double last_time_s_ = 0;
  double past_attempts_s_ = 0;
};

void note_divergence(RunRecords& run) {
  const auto diverged = [](const StepRecord& record) { return record.diverged; };
  const auto count = std::count_if(run.steps.begin(), run.steps.end(), diverged);
  if (count == 0) return;
  const auto first = std::find_if(run.steps.begin(), run.steps.end(), diverged);
  run.notices.push_back(fmt::format("{} {} a loss that is not a finite number, first at step {}.", count,
                                    count == 1 ? "step has" : "steps have", first->step));
}

}  // namespace

RunRecords parse_records(std::string_view text, std::string_view source) {
  Reader reader(source);
  reader.read(text);
  GANTRY_CHECK(!reader.empty(), "{}: no record in it; expected the lines that 'gantry train' writes", source);
  RunRecords run = std::move(reader).finish();
  note_divergence(run);
  if (!run.resumed_at.empty()) {
    std::string steps;
    for (const auto step : run.resumed_at) steps += fmt::format("{}{}", steps.empty() ? "" : ", ", step);
    run.notices.push_back(fmt::format("Resumed at step {}; repeated steps show their last values.", steps));
  }
  if (!run.end_reason) run.notices.push_back("No end is recorded: the run is still going or was stopped from outside.");
  return run;
}

RunRecords read_run(const std::filesystem::path& run) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(run, error);
  const std::filesystem::path file = folder ? run / "metrics.jsonl" : run;
  if (folder && !std::filesystem::exists(file, error)) {
    base::fail_input("{}: no metrics.jsonl in this folder; give a folder that 'gantry train --out' wrote",
                     run.string());
  }
  const base::MappedFile mapped(file);
  RunRecords records = parse_records(mapped.text(), file.string());
  records.file = file;
  const auto absolute = std::filesystem::absolute(file, error).lexically_normal();
  const bool standard_name = absolute.filename() == "metrics.jsonl" && absolute.has_parent_path();
  records.name = standard_name ? absolute.parent_path().filename().string() : absolute.stem().string();
  if (records.name.empty()) records.name = "run";
  return records;
}

std::vector<RunRecords> read_runs(const std::vector<std::filesystem::path>& runs) {
  GANTRY_CHECK(!runs.empty(), "report: no run given; name at least one folder that 'gantry train --out' wrote");
  std::vector<RunRecords> result;
  std::map<std::string, int> uses;
  for (const auto& run : runs) {
    result.push_back(read_run(run));
    const int use = ++uses[result.back().name];
    if (use > 1) result.back().name += fmt::format(" ({})", use);
  }
  return result;
}

}  // namespace gantry::cli::report
