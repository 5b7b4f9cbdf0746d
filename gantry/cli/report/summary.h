#pragma once
// The few numbers that sum up a run.
#include <cstdint>
#include <optional>
#include <string>

#include "gantry/cli/report/records.h"

namespace gantry::cli::report {

/// Numbers a run does not have are NaN.
struct Summary {
  std::int64_t last_step = 0;
  double first_loss = 0;       // mean of the finite losses of the first steps, as many as final_loss counts
  double final_loss = 0;       // mean of the finite losses of the last tenth of the steps, 1 to 50 of them
  std::size_t loss_steps = 0;  // how many those are
  double tokens = 0;           // trained on; repeated work is counted once
  double tokens_per_s = 0;     // median of the steps
  double peak_memory_bytes = 0;
  double duration_s = 0;
  std::string split;  // "validation" if there is one, else the first; empty without evaluation
  std::optional<EvalRecord> first_eval;
  std::optional<EvalRecord> last_eval;
};

Summary summarise(const RunRecords& run);

}  // namespace gantry::cli::report
