#pragma once
// Training steps of a stack of layers in a fixed memory budget, in a process of its own: Gantry's side of what
// bench/baselines/layers_step.py does with PyTorch, with the same settings, fields and search.
#include <cstdint>
#include <functional>
#include <string>

namespace gantry::cli::layers_bench {

/// The settings of layers_step.py, as the JSON object behind --worker.
struct WorkerSettings {
  std::string family = "bert";
  std::int64_t layers = 4;
  std::int64_t sequence_length = 512;
  double dropout = 0.1;
  std::string dtype = "fp32";
  std::string arm = "recompute";  ///< of arm_memory()
  std::int64_t budget_bytes = std::int64_t{1} << 30;
  std::int64_t batch = 0;        ///< 0: the largest that fits the budget
  std::int64_t timed_batch = 0;  ///< rounds take this batch, or the largest where that is smaller; 0: the largest
  std::int64_t threads = 2;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("family", family, "bert, gpt2 or llama");
    visit("layers", layers, "layers of the stack");
    visit("sequence_length", sequence_length, "tokens a sequence");
    visit("dropout", dropout, "rate of every dropout");
    visit("dtype", dtype, "fp32 or bf16");
    visit("arm", arm, "what every layer keeps");
    visit("budget_bytes", budget_bytes, "growth of the resident size that a step may cause");
    visit("batch", batch, "batch, 0: the largest that fits");
    visit("timed_batch", timed_batch, "largest batch of a timed round, 0: any");
    visit("threads", threads, "threads");
  }
};

/// The largest batch for which growth(batch), in bytes, is at most `budget`; 0 if not even 1 fits. Trial batches come
/// from a line through the first and the last that fits, and cut at least an eighth off what is open, because peaks
/// vary. A batch that fits was measured, and so was a larger one that does not, the next or at most a thirtysecond part
/// above, unless the line puts the next 3 % above the budget.
std::int64_t largest_batch(const std::function<std::int64_t(std::int64_t)>& growth, std::int64_t budget);

/// Serves until the input ends. base::Interrupted after SIGINT in the search, which may take minutes, within a step.
void serve_steps(const std::string& settings_json);

}  // namespace gantry::cli::layers_bench
